//! What the flags amount to once the engines have answered. Asks nobody.

use super::*;
use crate::config::{Config, Listen};

fn detected(base_url: &str, dialect: Dialect, models: &[(&str, Option<u32>)]) -> Detected {
    let model = |&(name, context_tokens_max): &(&str, _)| DetectedModel { name: name.to_owned(), context_tokens_max };
    Detected { base_url: base_url.to_owned(), dialect, simulated: false, models: models.iter().map(model).collect() }
}

fn latency(models: &[(&str, Option<u32>)]) -> Side {
    let url = "http://127.0.0.1:1/v1".to_owned();
    Named::latency(url.clone()).side(false, detected(&url, Dialect::Generic, models))
}

fn throughput(models: &[(&str, Option<u32>)]) -> Side {
    let url = "http://127.0.0.1:2/v1".to_owned();
    Named::throughput(url.clone()).side(false, detected(&url, Dialect::Vllm, models))
}

fn simulated(side: Side) -> Side {
    Side { simulated: true, ..side }
}

/// Name, route and context of each model.
fn offered(latency: &Side, throughput: &Side) -> Vec<(String, RouteName, u32)> {
    let models = models(Some(latency), Some(throughput));
    models.into_iter().map(|model| (model.name, model.route.unwrap(), model.context_tokens_max)).collect()
}

fn model(name: &str, route: RouteName, tokens: u32) -> (String, RouteName, u32) {
    (name.to_owned(), route, tokens)
}

#[test]
fn cerebras_is_an_endpoint_of_its_own_kind_and_key() {
    // What the list says of its dialect does not count: the service is known.
    let found = detected("https://api.cerebras.ai/v1", Dialect::Generic, &[("gpt-oss-120b", None)]);
    let expected = r#"[[endpoints]]
name = "cerebras"
tier = "latency"
backend = "cerebras"
base_url = "https://api.cerebras.ai/v1"
api_key_env = "CEREBRAS_API_KEY"

[[models]]
name = "gpt-oss-120b"
context_tokens_max = 131072
modalities = ["text"]
route = "latency-only"
"#;
    assert_eq!(tiers(Some(Named::cerebras().side(true, found)), None).unwrap(), expected);
    assert_eq!(Named::cerebras().base_url, "https://api.cerebras.ai/v1");
}

#[test]
fn what_latency_may_name() {
    assert_eq!("simulator".parse::<Latency>().unwrap(), Latency::Simulator);
    assert_eq!("cerebras".parse::<Latency>().unwrap(), Latency::Cerebras);
    let url = "https://h/v1";
    assert_eq!(url.parse::<Latency>().unwrap(), Latency::Engine(url.to_owned()));
    for what in ["", "cerebra", "Cerebras", "host:8000", "ftp://h/v1"] {
        assert!(what.parse::<Latency>().is_err(), "{what}");
    }
}

#[test]
fn a_name_at_both_tiers_is_one_model_with_the_smaller_context() {
    use RouteName::{LatencyFirst, LatencyOnly, ThroughputOnly};
    let expected = [
        model("a", LatencyFirst, 32_768),
        model("b", LatencyOnly, 131_072),
        model("c", LatencyFirst, 131_072),
        model("d", ThroughputOnly, 8192),
    ];
    let at_latency = latency(&[("a", None), ("b", None), ("c", Some(200_000)), ("b", None)]);
    let at_throughput = throughput(&[("c", None), ("a", Some(32_768)), ("d", Some(8192)), ("d", Some(8192))]);
    assert_eq!(offered(&at_latency, &at_throughput), expected);
}

#[test]
fn a_simulated_tier_never_answers_in_a_real_models_name() {
    use RouteName::{LatencyFirst, LatencyOnly, ThroughputOnly};
    let (real, played) = ([("a", Some(1000))], [("a", Some(2000))]);
    let (wafer, gpu) = (simulated(latency(&played)), simulated(throughput(&played)));
    assert_eq!(offered(&wafer, &throughput(&real)), [model("a", ThroughputOnly, 1000)]);
    assert_eq!(offered(&latency(&real), &gpu), [model("a", LatencyOnly, 1000)]);
    assert_eq!(offered(&wafer, &gpu), [model("a", LatencyFirst, 2000)]);
}

#[test]
fn names_that_differ_are_not_guessed_to_mean_the_same_but_a_hint_says_how_to_join_them() {
    let text =
        tiers(Some(latency(&[("gpt-oss-120b", None)])), Some(throughput(&[("openai/gpt-oss-120b", None)]))).unwrap();
    let (config, hint) = text.split_once("\n# No name is at both tiers").unwrap();
    let config = Config::parse("flags", config, Listen::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.fleet.models.len(), 2);
    let joined: String =
        hint.lines().skip_while(|line| *line != "# [[models]]").map(|line| line[2..].to_owned() + "\n").collect();
    let endpoints = &text[..text.find("[[models]]").unwrap()];
    let config = Config::parse("hint", &(endpoints.to_owned() + &joined), Listen::default())
        .unwrap_or_else(|error| panic!("{error}"));
    let model = &config.fleet.models[0];
    assert_eq!(&**model.upstream(flashlane_engine::Tier::Latency), "gpt-oss-120b");
    assert_eq!(&**model.upstream(flashlane_engine::Tier::Throughput), "openai/gpt-oss-120b");
}

#[test]
fn there_is_no_hint_where_nothing_is_to_be_joined() {
    let is_hinted = |latency, throughput| tiers(latency, throughput).unwrap().contains("# No name");
    assert!(!is_hinted(Some(latency(&[("a", None)])), Some(throughput(&[("b", None), ("a", None)]))));
    assert!(!is_hinted(Some(Side::simulator()), Some(throughput(&[("b", None)]))));
    assert!(!is_hinted(None, Some(throughput(&[("b", None)]))));
}

#[test]
fn a_models_name_stays_inside_of_the_hint() {
    let odd = "a\n[[keys]]\nname = \"x\"";
    let text = tiers(Some(latency(&[(odd, None)])), Some(throughput(&[("b", None)]))).unwrap();
    let config = Config::parse("flags", &text, Listen::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&*config.fleet.models[0].name, odd);
}
