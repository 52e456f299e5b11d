"""Webhooks: which addresses may be called, how payloads are signed, how long to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.errors import InvalidArgument
from headrace_kit.webhooks import (
    Allowed,
    Sender,
    delay_s,
    mlflow_headers,
    parse_target,
    refusal,
    require_secret,
    standard_headers,
)

NOTHING = Allowed()
REFUSED = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "private",
    "10.0.0.1": "private",
    "100.64.0.1": "not public",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.2.1": "private",
    "192.168.1.1": "private",
    "198.18.0.1": "private",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible, which holds another address",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.0.0.1": "private",
    "::ffff:169.254.169.254": "link-local",
    "64:ff9b::7f00:1": "loopback",
    "64:ff9b::a9fe:a9fe": "link-local",
    "64:ff9b:1::1": "a local translation to IPv4",
    "100::1": "reserved",
    "2001:0:1::1": "Teredo, which holds another address",
    "2001:db8::1": "private",
    "2002:7f00:1::": "6to4, which holds another address",
    "fc00::1": "private",
    "fd12:3456::1": "private",
    "fe80::1": "link-local",
    "fe80::1%1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}
PUBLIC = ("1.1.1.1", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_what_is_near_is_refused(address: str, kind: str) -> None:
    assert refusal(address, host="hooks.example.org", allowed=NOTHING) == kind


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_not(address: str) -> None:
    assert refusal(address, host="hooks.example.org", allowed=NOTHING) == ""


def test_the_operator_allows_hosts_and_networks() -> None:
    allowed = Allowed.parse("Hooks.corp, 10.1.0.0/16,::1")
    assert refusal("192.168.0.9", host="hooks.corp", allowed=allowed) == ""
    assert refusal("192.168.0.9", host="HOOKS.CORP.", allowed=allowed) == ""
    assert refusal("192.168.0.9", host="other.hooks.corp", allowed=allowed) == "private"
    assert refusal("10.1.2.3", host="x", allowed=allowed) == ""
    assert refusal("::ffff:10.1.2.3", host="x", allowed=allowed) == ""
    assert refusal("10.2.0.1", host="x", allowed=allowed) == "private"
    assert refusal("::1", host="x", allowed=allowed) == ""
    assert refusal("127.0.0.1", host="x", allowed=allowed) == "loopback"


@pytest.mark.parametrize("text", ["10.1.0.0/33", "10.1.2.3/16", "a b", "http://x", "300.1.1.1", "-a"])
def test_an_allowance_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no host or network"):
        Allowed.parse(text)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org",
        "//hooks.example.org/x",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "https://",
        "https:///x",
        "https://user:pass@hooks.example.org/",
        "https://user@hooks.example.org/",
        "https://:pass@hooks.example.org/",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org\\@127.0.0.1/",
        "https://hooks.example.org/a b",
        "https://hooks.example.org/\r\nhost: x",
        "https://[fe80::1%25eth0]/",
        "https://[::1",
        f"https://hooks.example.org/{'x' * 2000}",
    ],
)
def test_what_is_no_target_is_refused_with_its_field(url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_target(url, field="webhook.url")
    assert refused.value.field == "webhook.url"


def test_a_target_tells_its_origin_alone() -> None:
    target = parse_target("https://Hooks.Example.org:8443/secret/path?token=x#y", field="url")
    assert (target.origin, target.host, target.port) == ("https://hooks.example.org:8443", "hooks.example.org", 8443)
    assert target.url.fragment == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://localhost/",
        "http://127.0.0.1./",
    ],
)
async def test_however_loopback_is_written_it_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await Sender(NOTHING, timeout_s=5).check(url, field="webhook.url")
    assert refused.value.field == "webhook.url"
    assert refused.value.reason in {"TARGET_REFUSED", "TARGET_UNKNOWN"}


async def test_one_address_that_is_near_is_enough_to_refuse_a_host() -> None:
    async def find(host: str, port: int) -> list[str]:
        return ["93.184.215.14", "10.0.0.1"]

    with pytest.raises(InvalidArgument, match="private"):
        await Sender(NOTHING, timeout_s=5, find=find).check("https://hooks.example.org/", field="url")


def test_the_vector_of_standard_webhooks() -> None:
    headers = standard_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_vector_of_mlflows_server() -> None:
    headers = mlflow_headers("d-1", 1614265330, b'{"test": 2432232314}', ["my secret"])
    assert headers["X-MLflow-Signature"] == "v1,8AzOuDqqIuJV/LOkHbEtHvDQIXdIlURUJwNz/bBC7i0="


def test_while_a_secret_is_replaced_both_sign() -> None:
    old, new = standard_headers("i", 1, b"", ["the old one"]), standard_headers("i", 1, b"", ["the new one"])
    both = standard_headers("i", 1, b"", ["the new one", "the old one"])["webhook-signature"]
    assert both == f"{new['webhook-signature']} {old['webhook-signature']}"
    assert "webhook-signature" not in standard_headers("i", 1, b"", [])


@pytest.mark.parametrize("secret", ["", "short", "x" * 251, "whsec_no base64!", "whsec_abc", "a\nbcdefgh"])
def test_a_secret_that_can_not_sign_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        require_secret(secret, field="secret")
    assert refused.value.field == "secret"
    assert not secret or secret not in refused.value.message


@given(attempts=st.integers(1, 1000), chance=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_up_to_the_longest_and_are_spread(attempts: int, chance: float) -> None:
    pause = delay_s(attempts, base_s=10, most_s=3600, chance=chance)
    whole = min(3600, 10 * 4 ** min(attempts - 1, 20))
    assert whole / 2 <= pause < whole or pause == pytest.approx(whole)
    assert delay_s(attempts + 1, base_s=10, most_s=3600, chance=chance) >= pause


def test_eight_attempts_take_some_hours() -> None:
    pauses = [delay_s(each, base_s=10, most_s=3600, chance=0.5) for each in range(1, 8)]
    assert pauses[:5] == [7.5, 30, 120, 480, 1920]
    assert 1.5 < sum(pauses) / 3600 < 3
