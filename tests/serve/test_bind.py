from __future__ import annotations

import socket

import pytest

from tunesmith.errors import UserError
from tunesmith.serve import check_bind, create_app, serve
from tunesmith.serve.bind import bind, url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.6.7", "localhost", "::1", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_key(host):
    check_bind(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "0", "192.0.2.1", "2001:db8::1", "::ffff:0.0.0.0"])
@pytest.mark.parametrize("key", [None, ""])
def test_elsewhere_needs_a_key_and_the_message_says_both_ways_out(host, key):
    with pytest.raises(UserError, match=r"--api-key or TUNESMITH_API_KEY.*127\.0\.0\.1"):
        check_bind(host, key)
    check_bind(host, "sk-something")


def test_a_name_that_does_not_resolve_is_the_users_to_mend():
    with pytest.raises(UserError, match="does not resolve"):
        check_bind("no-such-host.invalid", None)
    with pytest.raises(UserError, match="does not resolve"):
        check_bind("x" * 300, None)


def test_serve_itself_refuses_a_public_address_without_a_key(scripted):
    app = create_app({"boutique": scripted()}, api_key=None)
    with pytest.raises(UserError, match="TUNESMITH_API_KEY"):
        serve(app, host="0.0.0.0", port=0)


def test_a_port_in_use_is_named_with_the_way_out():
    with bind("127.0.0.1", 0, has_key=False) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} on 127\.0\.0\.1 is in use.*--port 0"):
            bind("127.0.0.1", port, has_key=False)
    with bind("127.0.0.1", port, has_key=False):
        pass


def test_an_address_of_another_machine_cannot_be_taken():
    with pytest.raises(UserError, match="cannot listen on port 0 on 192"):
        bind("192.0.2.1", 0, has_key=True)


def test_the_url_has_the_port_that_was_found():
    with bind("localhost", 0, has_key=False) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
    with bind("0.0.0.0", 0, has_key=True) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_an_ipv6_url_has_brackets():
    try:
        sock = bind("::1", 0, has_key=False)
    except UserError:
        pytest.skip("this machine has no IPv6 loopback")
    with sock:
        assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"
