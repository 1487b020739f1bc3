//! What a config says of routing, and how its faults are told.

use super::{assert_invalid, parse, with_models};
use flashlane_engine::router::{PlanReason, Routing, Traits, route};
use flashlane_engine::{Modality, Route, Tier};

const MODEL: &str = "[[models]]\nname = \"m\"\n";

#[test]
fn rules_are_read_the_models_own_and_those_of_all() {
    let text = with_models(
        "[[models]]\nname = \"m\"\n\n[[models.rules]]\nwhen = { subagent = true }\nroute = \"throughput-only\"\n\n\
         [[rules]]\nwhen = { service_tier = [\"flex\"], tokens_input_min = 10 }\nroute = \"throughput-first\"\n",
    );
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let model = &config.fleet.models[0];
    assert_eq!((model.routing.rules.len(), config.fleet.rules.len()), (1, 1));
    let mut traits = Traits::default();
    let planned =
        |traits: &Traits| route(&config.fleet, model, traits).map(|plan| (plan.tiers().to_vec(), plan.reason));
    assert_eq!(planned(&traits), Ok((Route::LatencyFirst.tiers().to_vec(), PlanReason::ModelRoute)));
    traits.origin.subagent = true;
    assert_eq!(planned(&traits), Ok((vec![Tier::Throughput], PlanReason::Rule(1))));
}

#[test]
fn the_latency_tier_reads_text_alone_where_another_reads_more() {
    let accepted = |model: &str| {
        let config = parse(&with_models(model)).unwrap_or_else(|error| panic!("{error}"));
        config.fleet.models[0].accepts(Tier::Latency).modalities.clone()
    };
    let images = format!("{MODEL}modalities = [\"text\", \"image\"]\n");
    assert_eq!(accepted(&images), Some(vec![Modality::Text]));
    assert_eq!(accepted(&format!("{images}route = \"latency-only\"\n")), None);
    let both = accepted(&format!("{images}latency = {{ modalities = [\"image\", \"text\"] }}\n"));
    assert_eq!(both, Some(vec![Modality::Text, Modality::Image]));
}

#[test]
fn how_turns_find_their_endpoints_is_taken_over() {
    let config = parse(&with_models(&format!("{MODEL}[routing]\nbreaker_failures_max = 9\n")));
    let routing = config.unwrap_or_else(|error| panic!("{error}")).admission.routing;
    assert_eq!(routing, Routing { breaker_failures_max: 9, ..Routing::default() });
}

#[test]
fn an_endpoint_has_its_share() {
    let endpoint = "[[endpoints]]\nname = \"big\"\ntier = \"throughput\"\nbackend = \"simulator\"\n";
    let config = parse(&with_models(&format!("{MODEL}{endpoint}concurrency_max = 4\nweight = 3\n")));
    let fleet = config.unwrap_or_else(|error| panic!("{error}")).fleet;
    let shares: Vec<_> = fleet.endpoints.iter().map(|e| (e.share.concurrency_max, e.share.weight)).collect();
    assert_eq!(shares, [(None, 1), (None, 1), (Some(4), 3)]);
    for field in ["concurrency_max", "weight"] {
        let text = with_models(&format!("{MODEL}{endpoint}{field} = 0 # here\n"));
        assert_invalid(&text, &format!("endpoints[2].{field}"), "1");
    }
}

#[test]
fn faults_of_routing_name_their_place() {
    let gpu = "[[endpoints]]\nname = \"gpu\"\ntier = \"throughput\"\nbackend = \"simulator\"\n";
    let cases = [
        (
            format!("{gpu}{MODEL}[[rules]]\nroute = \"latency-first\" # here\n"),
            "rules[0].route",
            "names tier latency, which has no endpoint",
        ),
        (
            format!("{gpu}{MODEL}[[models.rules]]\nroute = \"latency-only\" # here\n"),
            "models[0].rules[0].route",
            "names tier latency, which has no endpoint",
        ),
        (
            with_models(&format!(
                "{MODEL}[[rules]]\nroute = \"latency-only\"\n[rules.when]\ntokens_input_max = 4\ntokens_input_min = 5 # here\n"
            )),
            "rules[0].when.tokens_input_min",
            "is above tokens_input_max",
        ),
        (
            with_models(&format!("{MODEL}[models.latency]\ncontext_tokens_max = 131073 # here\n")),
            "models[0].latency.context_tokens_max",
            "expected 1 to the model's own, 131072",
        ),
        (
            with_models(&format!("{MODEL}[models.throughput]\nmodalities = [\"text\", \"image\"] # here\n")),
            "models[0].throughput.modalities",
            "has \"image\" in it, which the model's own have not",
        ),
        (
            with_models(&format!("{MODEL}[models.latency]\nmodalities = [] # here\n")),
            "models[0].latency.modalities",
            "must have \"text\" in it",
        ),
        (
            with_models(&format!("{MODEL}[routing]\nbreaker_pause_ms_max = 10 # here\n")),
            "routing.breaker_pause_ms_max",
            "expected at least the first pause, 1000",
        ),
    ];
    for (text, field, message) in cases {
        assert_invalid(&text, field, message);
    }
    let many = "[[rules]]\nroute = \"latency-first\"\n".repeat(257);
    let error = parse(&with_models(&format!("{MODEL}{many}"))).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("rules: are 257: expected at most 256"), "{error}");
}
