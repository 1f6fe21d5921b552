import pytest

from tunesmith.data.clean.secrets import find_secrets

RANDOM = "q8Zr4TnV2xKj7LmP9wYb3HdC6sFg1AeU5"
# Put together here, so that no scanner takes this file for a leak.
KEYS = {
    "AWS": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + RANDOM + "abc",
    "OpenAI": "sk-" + "proj-" + RANDOM,
    "Anthropic": "sk-" + "ant-api03-" + RANDOM,
    "Slack": "xox" + "b-123456789012-" + RANDOM,
    "Google": "AIza" + "SyD-" + RANDOM[:31],
    "Stripe": "sk_" + "live_" + RANDOM,
    "GitLab": "glpat-" + RANDOM[:20],
    "SendGrid": "SG." + RANDOM[:22] + "." + RANDOM,
    "Hugging Face": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys_of_well_known_services_are_found(key: str) -> None:
    text = f"use {key}, please"
    assert [(span.kind, text[span.start : span.end]) for span in find_secrets(text)] == [("API_KEY", key)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----", "PRIVATE_KEY", None),
        ("postgresql://app:s3cr-et!@db.example.com:5432/x", "PASSWORD", "s3cr-et!"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "JWT", None),
        ("API_KEY = '9f86d081884c7d659a2f'", "SECRET", "9f86d081884c7d659a2f"),
        ('"client_secret": "Zx81-QwErTy-77ab"', "SECRET", "Zx81-QwErTy-77ab"),
        ("my password is Tr0ub4dor&3", "SECRET", "Tr0ub4dor&3"),
        ("https://hooks.slack.com/" + "services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX", "SECRET_URL", None),
    ],
)
def test_other_secrets_are_found(text: str, kind: str, value: str | None) -> None:
    assert [(span.kind, text[span.start : span.end]) for span in find_secrets(text)] == [(kind, value or text)]


@pytest.mark.parametrize(
    "text",
    [
        "The key is to practise; the secret: patience. Password: required",
        "Your password is too short. token = get_token(user)",
        "postgresql://user:password@localhost/db and redis://:${REDIS_PASSWORD}@cache",
        "api_key = os.environ['API_KEY']",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "the monkey: 12345678 bananas; the author: J. R. R. Tolkien-1892",
        "sk-learn and skip-connections-everywhere, SG.1",
        "num_tokens = 1024 * 1024",
    ],
)
def test_talk_about_secrets_survives(text: str) -> None:
    assert find_secrets(text) == []
