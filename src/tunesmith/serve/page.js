"use strict";
const token = new URLSearchParams(location.search).get("token");
const find = (id) => document.getElementById(id);
const invisible = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/;
let isBusy = false;

function say(text, isWrong = false) {
  find("said").textContent = text;
  find("said").className = isWrong ? "wrong" : "";
}

async function ask(action, fields) {
  let answer, content;
  try {
    answer = await fetch(`api/${action}?token=${encodeURIComponent(token)}`, {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({by: find("by").value.trim(), ...fields}),
    });
    content = await answer.json();
  } catch {
    throw new Error("tunesmith does not answer: has it been stopped? Nothing that was saved is lost.");
  }
  if (!answer.ok) throw new Error(content.error.message);
  return content;
}

async function once(work) {
  if (isBusy) return;
  isBusy = true;
  try { await work(); } catch (error) { say(error.message, true); } finally { isBusy = false; }
}

function part(kind, name, text = "") {
  const found = document.createElement(kind);
  if (name) found.className = name;
  if (text) found.textContent = text;
  return found;
}

function words(text) {
  const held = part("p");
  held.dir = "auto";
  for (const piece of text.split(new RegExp(`(${invisible.source})`))) {
    if (piece.length === 1 && invisible.test(piece)) {
      held.append(part("span", "sign", "U+" + piece.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")));
    } else held.append(piece);
  }
  return held;
}

function turn(role, text) {
  const held = part("section", `turn ${role}`);
  if (role) held.append(part("h2", "", role));
  held.append(words(text));
  return held;
}
