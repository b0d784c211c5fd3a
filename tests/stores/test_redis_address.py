"""What a URL of Redis says, and what is said of one that says nothing sensible."""

from __future__ import annotations

import pytest

from rpyserve.stores.redis_address import (
    RedisAddress,
    RedisSettings,
    TLSFiles,
    parse_redis_url,
)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", RedisAddress()),
        ("redis://db.example", RedisAddress("db.example")),
        ("redis://db.example:7000/3", RedisAddress("db.example", 7000, database=3)),
        ("redis://[::1]:7000", RedisAddress("::1", 7000)),
        ("redis://:p%40ss%2Fword@db", RedisAddress("db", password="p@ss/word")),
        ("redis://anna:pw@db/1", RedisAddress("db", user="anna", password="pw", database=1)),
        ("redis://db?db=4", RedisAddress("db", database=4)),
        ("rediss://db", RedisAddress("db", tls=TLSFiles())),
        (
            "rediss://db?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
            RedisAddress("db", tls=TLSFiles("/ca.pem", "/c.pem", "/k.pem")),
        ),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("redis+unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", database=2)),
        ("unix://a:b@/run/r.sock", RedisAddress(path="/run/r.sock", user="a", password="b")),
    ],
)
def test_one_server(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == RedisSettings((address,))


def test_several_servers_and_options() -> None:
    settings = parse_redis_url("redis://u:p@a,b:7000,[::1]/2?prefix=shop&lease=5")
    assert [str(shard) for shard in settings.shards] == ["a:6379", "b:7000", "[::1]:6379"]
    assert {(shard.user, shard.password, shard.database) for shard in settings.shards} == {
        ("u", "p", 2)
    }
    assert (settings.prefix, settings.lease) == ("shop", 5.0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://db", "begins with redis://"),
        ("db:6379", "begins with redis://"),
        ("redis://:secret@db/one", "a number, not 'one'"),
        ("redis://:secret@db:x", "no HOST or HOST:PORT"),
        ("redis://:secret@db:70000", "no HOST or HOST:PORT"),
        ("redis://:secret@a,,b", "no HOST or HOST:PORT"),
        ("redis://:secret@a,a", "named twice"),
        ("redis://secret@db", "USER:PASSWORD@HOST"),
        ("redis://:secret@db?decode=1", "'decode' is no option"),
        ("redis://:sec#ret@db", "%23"),
        ("redis://:secret@db?lease=soon", "seconds"),
        ("redis://:secret@db?lease=0", "seconds"),
        ("redis://:secret@db?prefix=a:b", "letters"),
        ("redis://:secret@db?ssl_ca_certs=/ca.pem", "rediss://"),
        ("unix://:secret@run/redis.sock", "begins with `/`"),
        ("unix:///", "begins with `/`"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_redis_url(url)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_nothing_that_is_printed_has_the_password() -> None:
    settings = parse_redis_url("redis://anna:secret@db")
    assert "secret" not in repr(settings) + str(settings.shards[0])
