//! An endpoint's config: what is read, what is refused, and that no secret shows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

mod rig;

use flashlane_backend::{Backends, Dialect, EndpointConfig, Kind, Secret, Tier};
use flashlane_engine::{Tier as EngineTier, UpstreamFailure};
use flashlane_testkit::upstream::{Upstream, chat_events, stream};
use serde::Deserialize;
use std::error::Error;

#[derive(Deserialize)]
struct File {
    endpoints: Vec<EndpointConfig>,
}

fn read(toml: &str) -> Result<Vec<EndpointConfig>, toml::de::Error> {
    toml::from_str::<File>(toml).map(|file| file.endpoints)
}

fn fault(toml: &str) -> String {
    match Backends::new(&read(toml).unwrap()) {
        Ok(_) => panic!("accepted: {toml}"),
        Err(error) => format!("{error}: {}", error.source().unwrap()),
    }
}

const OPENAI: &str = "[[endpoints]]\nname = \"gpu-1\"\ntier = \"throughput\"\nbackend = \"openai\"\n";

#[test]
fn a_config_becomes_the_fleets_endpoints() {
    let configs = read(
        r#"
        [[endpoints]]
        name = "wafer"
        tier = "latency"
        backend = "simulator"
        tokens_per_second = 3000

        [[endpoints]]
        name = "gpu"
        tier = "throughput"
        backend = "openai"
        dialect = "llama_cpp"
        base_url = "http://127.0.0.1:8000/v1"
        http_version = 2
        idle_connections_max = 0

        [[endpoints]]
        name = "rehearsal"
        tier = "throughput"
        backend = "openai"
        base_url = "http://127.0.0.1:8000/v1"
        simulated = true
        "#,
    )
    .unwrap();
    assert_eq!(configs[1].dialect, Some(Dialect::LlamaCpp));
    let backends = Backends::new(&configs).unwrap();
    let endpoints: Vec<_> = backends.endpoints().map(|e| (e.name.to_string(), e.tier, e.simulated)).collect();
    let expected = [
        ("wafer".to_owned(), EngineTier::Latency, true),
        ("gpu".to_owned(), EngineTier::Throughput, false),
        ("rehearsal".to_owned(), EngineTier::Throughput, true),
    ];
    assert_eq!(endpoints, expected);
}

#[test]
fn a_config_written_out_reads_back_and_shows_only_what_was_set() {
    let config = EndpointConfig {
        base_url: Some("http://127.0.0.1:8000/v1".to_owned()),
        dialect: Some(Dialect::Vllm),
        ..EndpointConfig::new("gpu-1", Tier::Throughput, Kind::OpenAi)
    };
    let written = toml::to_string(&config).unwrap();
    let expected = "name = \"gpu-1\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\ndialect = \"vllm\"\n";
    assert_eq!(written, expected);
    assert_eq!(toml::from_str::<EndpointConfig>(&written).unwrap(), config);
}

#[test]
fn every_dialect_is_read_by_its_name() {
    for dialect in Dialect::ALL {
        let toml = format!("{OPENAI}dialect = \"{}\"", dialect.name());
        assert_eq!(read(&toml).unwrap()[0].dialect, Some(dialect));
    }
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    let error = read(&format!("{OPENAI}base_uri = \"http://x\"")).unwrap_err().to_string();
    assert!(error.contains("base_uri"), "{error}");
}

#[test]
fn each_fault_names_its_endpoint_and_field() {
    let simulator = OPENAI.replace("openai", "simulator");
    let url = "base_url = \"http://127.0.0.1:1/v1\"\n";
    let no_file = "/nowhere/flashlane-test";
    let not_pem = rig::file("not.pem", "nothing");
    let not_pem = not_pem.display();
    let two_lines = rig::file("two-lines.key", "sk-hidden\r\nx-injected: 1");
    let two_lines = two_lines.display();
    // Cargo sets the variable for tests.
    let cerebras = |rest: &str| {
        let key = if rest.contains("api_key_env") { "" } else { "api_key_env = \"CARGO_PKG_NAME\"\n" };
        format!("{}{key}{rest}", OPENAI.replace("openai", "cerebras"))
    };
    let cases = [
        (OPENAI.to_owned(), "`base_url`: is missing"),
        (format!("{OPENAI}base_url = \"ftp://x/v1\""), "`base_url`: must begin with http"),
        (format!("{OPENAI}base_url = \"http://u:hidden@x/v1\""), "`base_url`: must hold no user"),
        (format!("{OPENAI}{url}http_version = 3"), "`http_version`: must be 1 or 2"),
        (format!("{OPENAI}{url}connect_ms_max = 0"), "`connect_ms_max`: must lie between 1 and 3600000"),
        (format!("{OPENAI}{url}idle_connections_max = 9999"), "`idle_connections_max`: must lie between 0 and 1024"),
        (
            format!("{OPENAI}{url}api_key_env = \"FLASHLANE_TEST_UNSET\""),
            "`api_key_env`: the environment variable `FLASHLANE",
        ),
        (format!("{OPENAI}{url}api_key_file = \"{no_file}\""), "`api_key_file`: cannot read"),
        (format!("{OPENAI}{url}api_key_file = \"{two_lines}\""), "`api_key_file`: the key must be one line"),
        (format!("{OPENAI}{url}api_key_env = \"A\"\napi_key_file = \"b\""), "`api_key_file`: only one of"),
        (format!("{OPENAI}base_url = \"https://x/v1\"\nca_file = \"{no_file}\""), "`ca_file`: cannot read"),
        (format!("{OPENAI}base_url = \"https://x/v1\"\nca_file = \"{not_pem}\""), "`ca_file`: `"),
        (format!("{OPENAI}{url}first_token_ms = 1"), "`first_token_ms`: has no meaning for backend \"openai\""),
        (format!("{simulator}simulated = true"), "`simulated`: has no meaning for backend \"simulator\""),
        (format!("{simulator}{url}"), "`base_url`: has no meaning for backend \"simulator\""),
        (format!("{OPENAI}{url}probe_ms = 500"), "`probe_ms`: has a meaning with dialect vllm, sglang, llama_cpp only"),
        (format!("{OPENAI}{url}dialect = \"vllm\"\nprobe_ms = 1"), "`probe_ms`: must lie between 50 and 10000"),
        (format!("{OPENAI}{url}priorities = true"), "`priorities`: has a meaning with dialect vllm, sglang only"),
        (cerebras("priorities = true"), "`priorities`: has no meaning for backend \"cerebras\""),
        (cerebras("probe_ms = 500"), "`probe_ms`: has no meaning for backend \"cerebras\""),
        (format!("{OPENAI}{url}service_tier = \"flex\""), "`service_tier`: has no meaning for backend \"openai\""),
        (format!("{simulator}warm_connections = 1"), "`warm_connections`: has no meaning for backend \"simulator\""),
        (cerebras("dialect = \"cerebras\""), "`dialect`: has no meaning for backend \"cerebras\""),
        (cerebras("api_key_env = \"FLASHLANE_TEST_UNSET\""), "`api_key_env`: the environment variable `FLASHLANE"),
        (cerebras("service_tier = \"fast\""), "`service_tier`: must be one of auto, default, flex, priority"),
        (cerebras("queue_ms_max = 200"), "`queue_ms_max`: has a meaning with service_tier auto or flex only"),
        (cerebras("service_tier = \"flex\"\nqueue_ms_max = 20001"), "`queue_ms_max`: must lie between 50 and 20000"),
        (cerebras("completion_tokens_max = 0"), "`completion_tokens_max`: must lie between 1"),
        (cerebras("gzip_bytes_min = 1"), "`gzip_bytes_min`: must lie between 1024"),
        (cerebras("gzip_bytes_min = 4096").replace("cerebras", "groq"), "`gzip_bytes_min`: has no meaning for backend"),
        (cerebras("service_tier = \"auto\"").replace("cerebras", "sambanova"), "`service_tier`: has no meaning"),
        (OPENAI.replace("openai", "responses"), "`base_url`: "),
        (format!("{OPENAI}{url}transport = \"http\""), "`transport`: has no meaning for backend \"openai\""),
        (
            format!("{}{url}transport = \"websocket\"\nhttp_version = 2\n", OPENAI.replace("openai", "responses")),
            "`http_version`: must be 1",
        ),
        (
            format!("{}base_url = \"http://h/v1\"\ndialect = \"vllm\"\n", OPENAI.replace("openai", "responses")),
            "`dialect`: ",
        ),
        (format!("{simulator}{simulator}"), "`name`: is used by another"),
    ];
    for (toml, expected) in cases {
        let fault = fault(&toml);
        assert!(fault.starts_with(&format!("endpoint `gpu-1`: {expected}")), "{fault}\nfor {toml}");
        assert!(!fault.contains("hidden"), "{fault}");
    }
}

#[test]
fn a_hosted_service_needs_no_more_than_its_name_and_its_key() {
    for (kind, variable) in
        [(Kind::Cerebras, "CEREBRAS_API_KEY"), (Kind::Groq, "GROQ_API_KEY"), (Kind::Sambanova, "SAMBANOVA_API_KEY")]
    {
        let config = EndpointConfig::new("wafer-1", Tier::Latency, kind);
        if std::env::var_os(variable).is_none() {
            let Err(error) = Backends::new(std::slice::from_ref(&config)) else { panic!("accepted without a key") };
            assert!(error.source().unwrap().to_string().contains(variable), "{error:?}");
        }
        let keyed = EndpointConfig { api_key_file: Some(rig::file("service.key", "csk-1")), ..config };
        assert!(Backends::new(&[keyed]).is_ok(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_key_is_sent_from_a_file_or_from_the_environment() {
    let upstream = Upstream::start(vec![stream(&chat_events(&["hi"]))]).await.unwrap();
    let key_file = rig::file("one.key", "  sk-in-a-file\n");
    let from_file = EndpointConfig { api_key_file: Some(key_file), ..rig::config(&upstream) };
    // Cargo sets it for tests.
    let from_env = EndpointConfig { api_key_env: Some("CARGO_PKG_NAME".to_owned()), ..rig::config(&upstream) };
    for (config, expected) in [(from_file, "Bearer sk-in-a-file"), (from_env, "Bearer flashlane-backend")] {
        rig::run(&rig::backends(config)).await;
        assert_eq!(upstream.seen().requests.last().unwrap().header("authorization"), Some(expected));
    }
}

#[tokio::test]
async fn a_secret_shows_nowhere() {
    let secret = Secret::new("sk-hidden".to_owned());
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    assert_eq!(secret.expose(), "sk-hidden");
    let upstream = Upstream::start(vec![]).await.unwrap();
    let config = EndpointConfig { api_key_file: Some(rig::file("key", "sk-hidden")), ..rig::config(&upstream) };
    drop(upstream);
    assert!(!format!("{config:?}{}", toml::to_string(&config).unwrap()).contains("sk-hidden"));
    let failure = rig::run(&rig::backends(config)).await.failure();
    assert!(matches!(failure, UpstreamFailure::Unreachable { .. }));
    assert!(!format!("{failure:?}").contains("sk-hidden"));
}
