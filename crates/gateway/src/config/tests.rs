//! What a config may say, what it amounts to, and how its faults are told. Reads no file and starts nothing.

mod keys;
mod page;
mod profile;
mod routing;
mod told;

use super::*;
use flashlane_engine::{Route, Tier};

const DEFAULT: &str = include_str!("../default.toml");

const TWO_TIERS: &str = r#"
[[endpoints]]
name = "wafer"
tier = "latency"
backend = "simulator"

[[endpoints]]
name = "gpu"
tier = "throughput"
backend = "simulator"
"#;

const GPU_ONLY: &str = "[[endpoints]]\nname = \"gpu\"\ntier = \"throughput\"\nbackend = \"simulator\"\n";

fn parse(text: &str) -> Result<Config, Invalid> {
    Config::parse("test.toml", text, Listen::default())
}

/// The error's text; the line is that of the only `# here` in the text, which every case marks.
#[track_caller]
fn assert_invalid(text: &str, field: &str, message: &str) {
    let error = parse(text).err().unwrap_or_else(|| panic!("accepted:\n{text}"));
    let here = text.lines().position(|line| line.contains("# here")).map(|i| i + 1);
    assert_eq!(error.line, here, "{error}");
    assert_eq!(error.field.as_deref(), Some(field), "{error}");
    assert!(error.message.contains(message), "{error}");
}

fn with_models(models: &str) -> String {
    format!("{TWO_TIERS}{models}")
}

#[test]
fn the_embedded_default_offers_both_tiers_on_loopback() {
    let config = parse(DEFAULT).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.server, EdgeConfig::default());
    assert_eq!(config.settings.queued_turns_max, Settings::default().queued_turns_max);
    let names: Vec<_> = config.fleet.models.iter().map(|model| &*model.name).collect();
    assert_eq!(names, ["flashlane-demo", "flashlane-demo-gpu", "gpt-5.3-codex-spark"]);
    assert_eq!(config.fleet.models[0].route, Route::LatencyFirst);
    assert!(config.fleet.endpoints.iter().all(|endpoint| endpoint.simulated));
}

#[test]
fn a_model_needs_only_its_name() {
    let config = parse(&with_models("[[models]]\nname = \"m\"\n")).unwrap_or_else(|error| panic!("{error}"));
    let model = &config.fleet.models[0];
    assert_eq!((model.context_tokens_max, model.route), (131_072, Route::LatencyFirst));
    assert_eq!(model.modalities, [Modality::Text]);
    assert_eq!(&**model.upstream(Tier::Throughput), "m");
}

#[test]
fn without_a_route_a_model_goes_where_there_are_endpoints() {
    let config = parse(&format!("{GPU_ONLY}[[models]]\nname = \"m\"\n")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.fleet.models[0].route, Route::ThroughputOnly);
}

#[test]
fn the_name_at_each_tier_is_kept() {
    let text = with_models("[[models]]\nname = \"m\"\nupstream = { latency = \"l\", throughput = \"org/t\" }\n");
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let model = &config.fleet.models[0];
    assert_eq!((&**model.upstream(Tier::Latency), &**model.upstream(Tier::Throughput)), ("l", "org/t"));
}

#[test]
fn settings_of_a_session_are_taken_over() {
    let text = with_models("[[models]]\nname = \"m\"\n[session]\nkeepalive_ms = 1234\n");
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.settings.keepalive_ms, 1234);
    assert_eq!(config.settings.event_bytes_max, Settings::default().event_bytes_max);
}

#[test]
fn what_is_not_toml_names_its_line() {
    let error = parse("[server]\nlisten = \n").err().unwrap();
    assert_eq!((error.line, error.field), (Some(2), None));
    assert!(error.message.contains("must be quoted"), "{}", error.message);
}

#[test]
fn an_unknown_field_names_itself_and_what_was_expected() {
    assert_invalid("[server]\nlisen = \"127.0.0.1:1\" # here\n", "server.lisen", "expected one of `listen`");
    assert_invalid(
        &with_models("[[models]]\nname = \"m\"\ncolour = \"red\" # here\n"),
        "models[0].colour",
        "`context_tokens_max`",
    );
    assert_invalid("[[endpoints]]\nname = \"a\"\nspeed = 3 # here\n", "endpoints[0].speed", "`dialect`");
    assert_invalid("[colours] # here\n", "colours", "expected one of `server`");
    let moved = "[server]\nping_ms = 1000 # here\n";
    assert_invalid(moved, "server.ping_ms", "has moved: expected it as `ping_ms` under `[server.limits]`");
}

#[test]
fn a_wrong_type_names_its_field() {
    assert_invalid(
        "[server.limits]\nconnections_max = \"many\" # here\n",
        "server.limits.connections_max",
        "expected a whole number",
    );
    let text = with_models("[[models]]\nname = \"m\"\ncontext_tokens_max = -1 # here\n");
    assert_invalid(&text, "models[0].context_tokens_max", "a whole number");
    let text = with_models("[[models]]\nname = \"m\"\nroute = \"fastest\" # here\n");
    assert_invalid(&text, "models[0].route", "expected one of `latency-first`");
    assert_invalid("[server]\nlisten = \"localhost\" # here\n", "server.listen", "such as 127.0.0.1:8700");
}

#[test]
fn a_missing_field_names_its_table() {
    assert_invalid(&with_models("[[models]] # here\nmodalities = [\"text\"]\n"), "models[0]", "missing field `name`");
}

#[test]
fn a_route_must_have_endpoints_in_its_tiers() {
    let text = format!("{GPU_ONLY}[[models]]\nname = \"m\"\nroute = \"latency-first\" # here\n");
    assert_invalid(&text, "models[0].route", "expected an [[endpoints]] table with tier = \"latency\"");
}

#[test]
fn a_split_route_needs_both_tiers() {
    let text = format!("{GPU_ONLY}[[models]]\nname = \"m\"\nroute = \"split\" # here\n");
    assert_invalid(&text, "models[0].route", "expected an [[endpoints]] table with tier = \"latency\"");
    let text = with_models(
        "[[models]]\nname = \"m\"\n[[rules]]\nroute = \"latency-first\"\nwhen = { tokens_new_min = 2, tokens_new_max = 1 } # here\n",
    );
    assert_invalid(&text, "rules[0].when.tokens_new_min", "no turn fits");
}

#[test]
fn only_loopback_is_served_without_keys() {
    assert_invalid("[server]\nlisten = \"0.0.0.0:8700\" # here\n", "server.listen", "or a loopback address");
    assert_invalid("[server]\nadmin_listen = \"[::]:8701\" # here\n", "server.admin_listen", "or a loopback address");
}

#[test]
fn beyond_loopback_operators_have_something_to_show() {
    let beyond = |mark: &str, fields: &str| {
        with_models(&format!("[[models]]\nname = \"m\"\n[server]\nadmin_listen = \"[::]:8701\"{mark}\n{fields}"))
    };
    let token = |count: usize| {
        let digests: Vec<_> = (0..count).map(|n| format!("\"{}\"", format!("{n:02x}").repeat(32))).collect();
        format!("[server.admin]\ntoken_sha256 = [{}]", digests.join(", "))
    };
    assert!(parse(&beyond("", &token(1))).is_ok() && parse(&beyond("", &token(2))).is_ok());
    let three = beyond("", &format!("{} # here\n", token(3)));
    assert_invalid(&three, "server.admin.token_sha256", "has 3 in it");
    let open = beyond(" # here", "[server.admin]\nmetrics_open = true\n");
    assert_invalid(&open, "server.admin_listen", "keys create --admin");
    // TLS that asks for no certificate shows nothing.
    let tls = |mark: &str| format!("[server.admin.tls]\ncertificate_file = \"c.pem\"{mark}\nkey_file = \"k.pem\"\n");
    assert_invalid(&beyond(" # here", &tls("")), "server.admin_listen", "client_ca_file in [server.admin.tls]");
    let unread = beyond("", &format!("{}client_ca_file = \"ca.pem\"\n", tls(" # here")));
    assert_invalid(&unread, "server.admin.tls.certificate_file", "cannot read `c.pem`");
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let server = |fields: &str| with_models(&format!("[[models]]\nname = \"m\"\n[server]\n{fields}\n"));
    assert!(parse(&server("trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nproxy_protocol = true")).is_ok());
    assert_invalid(&server("trusted_proxies = [\"proxy\"] # here"), "server.trusted_proxies", "such as 10.0.0.0/8");
    assert_invalid(&server("proxy_protocol = true # here"), "server.proxy_protocol", "expected trusted_proxies");
}

#[test]
fn client_certificates_need_an_authority() {
    let text = "[[models]]\nname = \"m\"\n[server.tls]\ncertificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n\
                client_certificates = \"optional\" # here\n";
    assert_invalid(&with_models(text), "server.tls.client_certificates", "expected client_ca_file beside it");
}

#[test]
fn models_have_names_of_their_own_and_take_text() {
    let text = with_models("[[models]]\nname = \"m\"\n[[models]]\nname = \"m\" # here\n");
    assert_invalid(&text, "models[1].name", "used by another model");
    assert_invalid(&with_models("[[models]]\nname = \"\" # here\n"), "models[0].name", "must not be empty");
    let text = with_models("[[models]]\nname = \"m\"\nmodalities = [\"image\"] # here\n");
    assert_invalid(&text, "models[0].modalities", "\"text\"");
    let text = with_models("[[models]]\nname = \"m\"\ncontext_tokens_max = 0 # here\n");
    assert_invalid(&text, "models[0].context_tokens_max", "at least 1");
}

#[test]
fn an_endpoints_fault_is_placed() {
    let text = format!("{GPU_ONLY}[[endpoints]]\nname = \"gpu\" # here\ntier = \"latency\"\nbackend = \"simulator\"\n");
    assert_invalid(&text, "endpoints[1].name", "used by another one");
    let text = "[[endpoints]] # here\nname = \"gpu\"\ntier = \"throughput\"\nbackend = \"openai\"\n";
    assert_invalid(text, "endpoints[0].base_url", "is missing");
}

#[test]
fn an_empty_config_says_what_it_needs() {
    assert_invalid("", "endpoints", "at least one [[endpoints]]");
    assert_invalid(GPU_ONLY, "models", "at least one [[models]]");
}

#[test]
fn an_error_reads_as_file_line_field_and_message() {
    let error = parse("[server.limits]\nconnections_max = true\n").err().unwrap().to_string();
    assert!(error.starts_with("test.toml:2: server.limits.connections_max: is true: expected a"), "{error}");
}

#[test]
fn a_fault_in_tls_names_its_field() {
    let models = "[[models]]\nname = \"m\"\n";
    let tls = |fields: &str| with_models(&format!("{models}[server.tls]\n{fields}"));
    let missing = "certificate_file = \"no-such-file.pem\" # here\nkey_file = \"no-such-key.pem\"\n";
    assert_invalid(&tls(missing), "server.tls.certificate_file", "cannot read `no-such-file.pem`");
    let half = with_models(&format!("{models}[server.tls] # here\ncertificate_file = \"c.pem\"\n"));
    assert_invalid(&half, "server.tls", "missing field `key_file`");
    let both = "certificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n";
    assert_invalid(&tls(&format!("{both}handshakes_max = 0 # here\n")), "server.tls.handshakes_max", "from 1");
    assert_invalid(&tls(&format!("{both}versions = 3 # here\n")), "server.tls.versions", "unknown field");
}

#[test]
fn clients_and_operators_have_addresses_of_their_own() {
    let same = "[server]\nlisten = \"127.0.0.1:9000\"\nadmin_listen = \"127.0.0.1:9000\" # here\n";
    assert_invalid(same, "server.admin_listen", "127.0.0.1:9000 is where clients connect, too: expected another port");
    let free = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    assert!(parse(&with_models(&format!("[[models]]\nname = \"m\"\n{free}"))).is_ok());
}

#[test]
fn a_flag_goes_before_the_file_and_a_fault_of_it_names_it() {
    let text = with_models("[[models]]\nname = \"m\"\n[server]\nlisten = \"127.0.0.1:9000\"\n");
    let parse = |clients: Option<&str>, admin: Option<&str>| {
        let [clients, admin] = [clients, admin].map(|address| address.map(|address| address.parse().unwrap()));
        Config::parse("test.toml", &text, Listen { clients, admin })
    };
    let config = parse(None, Some("127.0.0.1:9001")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!([config.server.listen.port(), config.server.admin_listen.port()], [9000, 9001]);
    let said = parse(None, Some("127.0.0.1:9000")).err().unwrap().to_string();
    assert!(said.starts_with("--admin-listen: 127.0.0.1:9000 is where clients connect"), "{said}");
    let said = parse(Some("0.0.0.0:9002"), None).err().unwrap().to_string();
    assert!(said.starts_with("--listen: 0.0.0.0:9002 is reachable from elsewhere"), "{said}");
}

#[test]
fn a_limit_that_would_stop_everything_names_its_line() {
    assert_invalid(
        "[server.limits]\nrequest_bytes_max = 0 # here\n",
        "server.limits.request_bytes_max",
        "expected at least 1",
    );
    assert_invalid("[store]\nbytes_max = 0 # here\n", "store.bytes_max", "expected at least 1");
}

#[test]
fn an_endpoint_that_leads_nowhere_or_back_here_is_told() {
    let text = |base_url: &str| {
        let base_url = format!("base_url = {base_url:?} # here\n");
        format!("[[endpoints]]\nname = \"gpu\"\ntier = \"throughput\"\nbackend = \"openai\"\n{base_url}")
    };
    assert_invalid(&text("http://127.0.0.1:0/v1"), "endpoints[0].base_url", "from 1 to 65535");
    assert_invalid(&text("http://127.0.0.1:8700/v1"), "endpoints[0].base_url", "where flashlane itself listens");
}

#[test]
fn a_name_at_a_tier_is_not_empty() {
    let text = with_models("[[models]]\nname = \"m\"\nupstream = { latency = \"\" } # here\n");
    assert_invalid(&text, "models[0].upstream.latency", "must not be empty");
}

#[test]
fn an_origin_or_host_that_nobody_could_send_is_told() {
    for origin in ["app.example", "*", "https://app.example/"] {
        let text = format!("[server]\nallowed_origins = [\"https://a.example:8443\", {origin:?}] # here\n");
        assert_invalid(&text, "server.allowed_origins[1]", "such as https://app.example:8443");
    }
    for host in ["https://flash.example", "flash.example:8700", ""] {
        let text = format!("[server]\nallowed_hosts = [{host:?}] # here\n");
        assert_invalid(&text, "server.allowed_hosts[0]", "without scheme and port");
    }
}

#[test]
fn a_data_folder_that_cannot_be_names_its_line() {
    let text = with_models("[[models]]\nname = \"m\"\n[store]\nfolder = \"Cargo.toml\" # here\n");
    assert_invalid(&text, "store.folder", "expected a folder that this user may write");
}
