"""A chat template from a stranger: it reaches nothing, it ends, and it fills no memory; and honest templates notice nothing."""

from __future__ import annotations

import json
import resource
import threading
import time
from pathlib import Path

import pytest

from tunesmith.data.chat import ChatFormat
from tunesmith.data.template import CHATML, ChatTemplate, TemplateRefused
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.errors import DataError, ModelError
from tunesmith.records import Message, Role

MESSAGES = [Message(role=Role.USER, content="Do you open on Sundays?"), Message(role=Role.ASSISTANT, content="No.")]
NAMESPACE = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}"
STOPPED = "the template was stopped"


def render(text: str, messages: list[Message] = MESSAGES, **special: str) -> str:
    return ChatTemplate(text, name="a template", special_tokens=special).render(messages, add_generation_prompt=True)


ESCAPES = {
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the globals of a helper": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "the globals of a function of ours": "{{ raise_exception.__globals__ }}",
    "the globals of a namespace": "{{ namespace.__init__.__globals__ }}",
    "an attribute by filter": "{{ (''|attr('__class__')).mro() }}",
    "the environment": "{{ self.__init__ }}",
    "a message changed": "{{ messages.append({}) }}",
    "a message's key changed": "{{ messages[0].update({'role': 'system'}) }}",
    "a file included": "{% include '/etc/passwd' %}",
    "a module imported": "{% import 'os' as os %}{{ os }}",
    "a module's name imported": "{% from 'os' import system %}",
    "another template extended": "{% extends '../outside' %}",
    "an error of its own": "{{ raise_exception('roles must alternate') }}",
    "text of a web page": "{{ lipsum() }}",
}
ENDLESS = {
    "a range of a billion": "{% for i in range(10**9) %}x{% endfor %}",
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops in loops over names": "{% for i in range(99999) %}{% for m in range(99999) %}{% set x = i %}{% endfor %}{% endfor %}",
    "a filter in a loop": "{% for i in range(99999) %}{% set x = range(9999)|map('string')|list %}{% endfor %}",
    "a text printed for ever": "{% for i in range(99999) %}{{ 'x' * 90000 }}{% endfor %}",
    "a text repeated": "{{ 'a' * 10**10 }}",
    "a tuple repeated": "{{ (1,) * 10**9 }}",
    "a power": "{{ (((99999 ** 9999) ** 9999) ** 9999) }}",
    "a width in a format": "{{ '{:>1000000000}'.format(1) }}",
    "a width in an old format": "{{ '%1000000000d' % 1 }}",
    "a width given to an old format": "{{ '%*d' % (10**9, 1) }}",
    "a width in the format filter": "{{ '%1000000000d'|format(1) }}",
    "a format in a format": "{{ '{:{}}'.format(1, '9' * 9) }}",
    "a filter's width": "{{ 'a'|center(10**9) }}",
    "a method's width": "{{ 'a'.ljust(10**9) }}",
    "zeros": "{{ '1'.zfill(10**9) }}",
    "tabs": "{{ ('\\t' * 9999).expandtabs(99999) }}",
    "an indent": "{{ ('\\n' * 9999)|indent(99999) }}",
    "an indent of JSON": "{{ range(99999)|list|tojson(indent=99999) }}",
    "a join": "{{ (['a'] * 99999)|join('b' * 99999) }}",
    "a join by method": "{{ ('b' * 99999).join(['a'] * 99999) }}",
    "a join of what is made on the way": "{{ range(99999)|map('center', 99999)|join }}",
    "texts doubled": NAMESPACE + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "texts added": NAMESPACE + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "texts replaced": NAMESPACE + "{% set ns.s = ns.s|replace('', 'abc') %}{% endfor %}",
    "texts replaced by method": NAMESPACE + "{% set ns.s = ns.s.replace('a', 'aaaa') %}{% endfor %}",
    "texts formatted": NAMESPACE + "{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "lists in lists": NAMESPACE + "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "mappings in mappings": NAMESPACE + "{% set ns.s = {1: ns.s, 2: ns.s} %}{% endfor %}{{ ns.s|tojson }}",
    "mappings by name": NAMESPACE + "{% set ns.s = dict(a=ns.s, b=ns.s) %}{% endfor %}",
    "namespaces in namespaces": NAMESPACE + "{% set ns.s = namespace(a=ns.s, b=ns.s) %}{% endfor %}{{ ns.s }}",
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.s = ns %}{{ ns }}",
    "a long text searched": "{% set s = 'a' * 9999999 %}{% for i in range(99999) %}{% set x = 'b' in s %}{% endfor %}",
    "a long text counted": "{% set s = 'a' * 9999999 %}{% for i in range(99999) %}{% set x = s.count('b') %}{% endfor %}",
    "a long text cut": "{% set s = 'a' * 9999999 %}{% for i in range(99999) %}{% set x = s[1:] %}{% endfor %}",
    "lists summed": "{{ range(99999)|batch(1)|sum(start=[]) }}",
}
RECURSIVE = {
    "a macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a block": "{% block a %}{{ self.a() }}{% endblock %}",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_that_reaches_out_gets_nothing(name: str) -> None:
    try:
        found = render(ESCAPES[name])
    except TemplateRefused:
        found = ""
    assert found == ""  # what jinja does not give is undefined there, and prints nothing


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*ENDLESS, *RECURSIVE])
def test_a_template_without_end_is_stopped_soon_and_takes_little_memory(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(TemplateRefused, match=STOPPED if name in ENDLESS else f"{STOPPED}|RecursionError"):
        render({**ENDLESS, **RECURSIVE}[name])
    assert time.process_time() - start < 20  # of the processor: a second or two on a machine with nothing else to do
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10  # KiB


def test_a_template_is_stopped_in_any_thread_at_the_same_place_and_none_is_left() -> None:
    said: list[str] = []

    def work() -> None:
        try:
            render("{% for i in range(50000) %}{% for j in range(50000) %}{% endfor %}{% endfor %}")
        except TemplateRefused as error:
            said.append(str(error))
        said.append(render(CHATML))  # the next rendering has a budget of its own

    threads = [threading.Thread(target=work) for _ in range(2)]
    count = threading.active_count()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threading.active_count() == count
    assert sorted(said) == sorted(["the template was stopped: it loops or grows without end", render(CHATML)] * 2)


def test_what_a_template_may_do_grows_with_what_it_is_given() -> None:
    """For each message through all of them: 250,000 turns of the inner loop."""
    text = "{% for a in messages %}{% for b in messages %}{% if loop.last %}{{ b.content }}{% endif %}{% endfor %}{% endfor %}"
    messages = [Message(role=Role.USER, content=f"{i} " * 50) for i in range(500)]
    assert render(text, messages) == messages[-1].content * 500


@pytest.mark.parametrize(
    "text", ["{% for %}", "{{ x", "{% macro %}", "{{ 'x' | nothing }}", "{% generation %}", "x" * (1 << 20) + "y"]
)
def test_a_template_that_is_no_jinja_is_told_before_anything_is_rendered(text: str, tmp_path: Path) -> None:
    train_tokenizer(["some text to learn from"] * 5, vocab_size=300, folder=tmp_path)
    (tmp_path / "chat_template.jinja").write_text(text)
    with pytest.raises(ModelError, match=r"chat_template\.jinja: the chat template is not valid jinja"):
        ChatFormat.load(tmp_path)


def test_a_hostile_template_of_a_folder_is_a_refusal_in_plain_words(tmp_path: Path) -> None:
    train_tokenizer(["some text to learn from"] * 5, vocab_size=300, folder=tmp_path)
    (tmp_path / "chat_template.jinja").write_text(ENDLESS["texts doubled"] + CHATML)
    chat = ChatFormat.load(tmp_path)
    with pytest.raises(DataError, match=rf"chat_template\.jinja refuses this conversation: {STOPPED}"):
        chat.encode_prompt(MESSAGES[:1])


HONEST = {
    "system first": "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}{{ m.role ~ ': ' ~ m['content'].strip() }}{% endfor %}",
    "slices and namespaces": "{% set ns = namespace(last=-1) %}{% for m in messages[::-1] %}{% set ns.last = loop.index0 %}"
    "{{ m.content.split(' ')[-1] }}{{ '%d of %d' % (loop.index, loop.length) }}{% endfor %}{{ ns.last }}",
    "filters": "{{ messages | map(attribute='role') | list | join(', ') }}{{ messages | tojson(indent=2) }}"
    "{{ (messages | selectattr('role', 'equalto', 'user') | list | length) }}{{ 'a b'.replace('a', 'c') | upper | indent(4) }}",
    "macros": "{% macro turn(m, n=1) %}<{{ m.role }}{{ n }}>{{ m.content }}{% endmacro %}"
    "{% for m in messages %}{{ turn(m, n=loop.index) }}{% endfor %}{{ '{:>5}'.format('x') }}{{ 'in' if 'user' in ['user'] else '' }}",
    "a list that grows": "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m.content] %}{% endfor %}"
    "{{ ns.l | join('|') }}{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}{% set x, y = (1, 2) %}{{ x + y }}",
    "chatml": CHATML,
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_template_prints_what_jinjas_own_sandbox_prints(name: str) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = [{"role": message.role.value, "content": message.content} for message in MESSAGES]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, indent=indent, ensure_ascii=False)
    expected = environment.from_string(HONEST[name]).render(
        messages=plain, add_generation_prompt=True, bos_token="<s>", tools=None, documents=None
    )
    assert render(HONEST[name], bos_token="<s>") == expected
    assert len(expected) > 20
