//! How a model is to work, as a config says it: what holds at a tier, and what is refused.

use super::{assert_invalid, parse, with_models};
use flashlane_engine::Tier;
use flashlane_engine::router::Effort;

/// The message that is added at each tier, and the effort.
fn profiles(model: &str) -> [(Option<String>, Option<Effort>); 2] {
    let config = parse(&with_models(&format!("[[models]]\nname = \"m\"\n{model}")));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    Tier::ALL.map(|tier| {
        let profile = config.fleet.models[0].profiles.at(tier);
        let message = profile.appended.as_ref().map(|it| String::from_utf8(it.message.to_vec()).unwrap());
        (message, profile.effort)
    })
}

fn system(text: &str) -> Option<String> {
    Some(format!("{{\"role\":\"system\",\"content\":\"{text}\"}}"))
}

#[test]
fn a_tier_goes_before_its_model() {
    assert_eq!(profiles(""), [(None, None), (None, None)]);
    let of_model = "instructions_append = \"say \\\"why\\\"\"\neffort = \"high\"\n";
    let both = (system(r#"say \"why\""#), Some(Effort::High));
    assert_eq!(profiles(of_model), [both.clone(), both.clone()]);
    let light =
        format!("{of_model}latency = {{ instructions_append = \"light\" }}\nthroughput = {{ effort = \"xhigh\" }}\n");
    let [latency, throughput] = profiles(&light);
    assert_eq!(latency, (system("light"), Some(Effort::High)));
    assert_eq!(throughput, (both.0.clone(), Some(Effort::Xhigh)));
    let none = format!("{of_model}latency = {{ instructions_append = \"\" }}\n");
    assert_eq!(profiles(&none), [(None, Some(Effort::High)), both]);
}

#[test]
fn its_faults_name_their_place() {
    let long = "x".repeat(16_385);
    let model = "[[models]]\nname = \"m\"\n";
    let text = format!("{model}instructions_append = \"{long}\" # here\n");
    assert_invalid(&with_models(&text), "models[0].instructions_append", "has 16385 bytes: expected at most 16384");
    let text = format!("{model}[models.throughput]\ninstructions_append = \"{long}\" # here\n");
    assert_invalid(&with_models(&text), "models[0].throughput.instructions_append", "expected at most 16384");
    let error = parse(&with_models(&format!("{model}effort = \"most\"\n"))).err().unwrap();
    assert!(error.to_string().contains("models[0].effort") && error.message.contains("`high`"), "{error}");
}
