//! `[[keys]]`: what is taken, and where a fault is placed.

use super::*;

fn digest(digits: &str) -> String {
    digits.repeat(32)
}

/// Two models behind two tiers, and `rest`.
fn with_keys(rest: &str) -> String {
    with_models(&format!("[[models]]\nname = \"m\"\n[[models]]\nname = \"gpu\"\nroute = \"throughput-only\"\n{rest}"))
}

fn key(fields: &str) -> String {
    with_keys(&format!("[[keys]]\nname = \"a\"\nsha256 = [\"{}\"]\n{fields}\n", digest("ab")))
}

#[test]
fn a_server_with_a_key_may_be_reached_from_elsewhere() {
    let text = format!("[server]\nlisten = \"0.0.0.0:8700\"\n{}", key(""));
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.keys[0].name.as_str(), config.keys[0].only()), ("a", None));
    let text = format!("[server]\nadmin_listen = \"0.0.0.0:8701\" # here\n{}", key(""));
    assert_invalid(&text, "server.admin_listen", "nothing is asked for there");
}

#[test]
fn a_key_has_a_name_of_its_own_and_one_or_two_digests_of_its_own() {
    let table = |name: &str, digests: &str| format!("[[keys]]\nname = {name}\nsha256 = {digests}\n");
    let (one, other) = (digest("01"), digest("02"));
    let two = with_keys(&table("\"a\"", &format!("[\"{one}\", \"{other}\"]")));
    assert!(parse(&two).is_ok());
    for (text, field, message) in [
        (table("\"\" # here", &format!("[\"{one}\"]")), "keys[0].name", "must not be empty"),
        (table("\"a\"", "[] # here"), "keys[0].sha256", "has 0 in it"),
        (table("\"a\"", "[\"abc\"] # here"), "keys[0].sha256", "64 hexadecimal digits"),
        (table("\"a\"", "\"abc\" # here"), "keys[0].sha256", "a list"),
        (
            table("\"a\"", &format!("[\"{one}\"]")) + &table("\"a\" # here", &format!("[\"{other}\"]")),
            "keys[1].name",
            "used by another key",
        ),
        (
            table("\"a\"", &format!("[\"{one}\"]")) + &table("\"b\"", &format!("[\"{one}\"] # here")),
            "keys[1].sha256",
            "that of the key \"a\" too",
        ),
    ] {
        assert_invalid(&with_keys(&text), field, message);
    }
}

#[test]
fn what_a_key_may_use_is_there() {
    let config = parse(&key("models = [\"gpu\"]\ntiers = [\"throughput\"]")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.keys[0].only(), Some(Tier::Throughput));
    assert_eq!(parse(&key("tiers = [\"latency\", \"throughput\"]")).unwrap().keys[0].only(), None);
    for (fields, field, message) in [
        ("models = [\"x\"] # here", "keys[0].models", "no [[models]] table's name"),
        ("limits = { latency = { turns_max = 0 } } # here", "keys[0].limits.latency.turns_max", "from 1 to 4294967295"),
        ("limits = { latency = { burst_ms = 1 } } # here", "keys[0].limits.latency.burst_ms", "unknown field"),
        (
            "tiers = [\"latency\"]\nlimits = { throughput = { turns_max = 1 } } # here",
            "keys[0].limits",
            "in tier throughput",
        ),
        ("models = [] # here", "keys[0].models", "is empty"),
        ("tiers = [] # here", "keys[0].tiers", "is empty"),
        ("tiers = [\"fast\"] # here", "keys[0].tiers[0]", "unknown value"),
        ("models = [\"gpu\"]\ntiers = [\"latency\"] # here", "keys[0].tiers", "leaves no model"),
    ] {
        assert_invalid(&key(fields), field, message);
    }
}

#[test]
fn rules_name_keys_that_are_there() {
    let rule = |when: &str| key(&format!("[[rules]]\nroute = \"throughput-only\"\nwhen = {{ {when} }} # here\n"));
    assert!(parse(&rule("key = [\"a\"]")).is_ok());
    assert_invalid(&rule("key = [\"b\"]"), "rules[0].when.key", "no [[keys]] table's name");
    let digest = format!("authorization_sha256 = [\"{}\"]", digest("ab"));
    assert_invalid(&rule(&digest), "rules[0].when.authorization_sha256", "without keys");
}
