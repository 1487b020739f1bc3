//! The words that the simulator speaks where the user's own are not enough. Knows nothing of requests.

use crate::rng::Rng;

pub(crate) const GREETING: &str = "Hello! I am the flashlane simulator: a script that plays a model, so that you can see tokens \
stream without one. Ask me to count from 1 to 20, to repeat something, or, where you offer me a shell, to write a file.";

pub(crate) const NO_TOOL: &str = "You asked for a file to be changed, but this request offers no tool that I know how to do \
it with: a shell such as `exec_command`, or `apply_patch`.\n\n";

const OPENINGS: [&str; 4] = [
    "This is the flashlane simulator speaking. No model reads your question; a script answers it, at the pace of the tier \
that it stands in for.",
    "You have reached the flashlane simulator. What follows is prepared text, cut into tokens and sent on a timetable, so \
that you can watch a stream without the hardware behind it.",
    "I am the flashlane simulator, a scripted engine. I do not think, and nothing below was computed from what you wrote; \
only the timing is meant to be like the real thing.",
    "The flashlane simulator answers here in place of a model. Its words come from a short list, chosen by a seed, and its \
pace comes from a profile.",
];

const MIDDLES: [&str; 4] = [
    "A stream has two numbers worth watching. The first is the time until the first token, which is what a person feels as \
waiting. The second is the time between tokens, which decides how soon a tool call is complete and the next step of an \
agent can begin.",
    "A gateway adds its own time to every token it carries. The way to keep that small is to do little: read what has come, \
find the piece that changed, copy it into an event that is already laid out, and write once for all that is ready.",
    "Two tiers stand behind one address. Work that somebody waits for goes to the fast one while it has room, and the rest \
goes to the one with more room. A queue between them has an end, and says so when it is full.",
    "A conversation grows by small steps, but a client without memory on the other side sends all of it again each time. A \
connection that stays open can keep the history where it is needed, so that a step costs what is new in it.",
];

const CODES: [&str; 4] = [
    "```rust\nfn main() {\n    let tokens = [\"flash\", \"lane\", \" \", \"simulator\"];\n    for token in tokens {\n        \
print!(\"{token}\");\n    }\n    println!();\n}\n```",
    "```python\nimport time\n\ndef stream(tokens, rate=65):\n    for token in tokens:\n        print(token, end=\"\", \
flush=True)\n        time.sleep(1 / rate)\n\nstream([\"flash\", \"lane\", \"\\n\"])\n```",
    "```javascript\nconst started = performance.now();\nlet first = null;\nfor await (const chunk of stream) {\n  first ??= \
performance.now() - started;\n  process.stdout.write(chunk);\n}\nconsole.log(`first token after ${first} ms`);\n```",
    "```sh\ncurl -sN http://127.0.0.1:8700/v1/chat/completions \\\n  -H 'content-type: application/json' \\\n  -d \
'{\"model\": \"flashlane-demo\", \"stream\": true,\n       \"messages\": [{\"role\": \"user\", \"content\": \"count to 5\"}]}'\n```",
];

const CLOSINGS: [&str; 4] = [
    "That is all the simulator has to say about it. Point flashlane at a real engine, and the same stream carries a real \
answer.",
    "The code above is part of the script too. Ask the simulator to count, and you can check that no token is lost or sent \
twice.",
    "With another seed the simulator would have said something else, at the same pace.",
    "Nothing here should be taken for an answer: it comes from the flashlane simulator, and only shows how one would arrive.",
];

const REASONINGS: [&str; 3] = [
    "I am the flashlane simulator, so this reasoning is scripted as well. I look at the newest message, and pick what I can \
play.",
    "The request asks for some effort before the answer. The simulator has none to spend, and sends these words in its place.",
    "First the newest message, then the tools that are offered, then the form of the answer: that is the simulator's whole plan.",
];

/// Some 200 tokens of text with a block of code.
pub(crate) fn essay(rng: &mut Rng) -> String {
    [&OPENINGS, &MIDDLES, &CODES, &CLOSINGS].map(|part| rng.pick(part)).join("\n\n")
}

/// A few sentences of what a model would have thought.
pub(crate) fn reasoning(rng: &mut Rng) -> String {
    rng.pick(&REASONINGS).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens;

    #[test]
    fn every_essay_is_readable_text_with_code_that_names_the_simulator() {
        let essays: Vec<String> = (0..64).map(|seed| essay(&mut Rng::new(seed))).collect();
        for essay in &essays {
            let count = tokens::split(essay).count();
            assert!((150..350).contains(&count), "{count} tokens");
            assert!(essay.contains("flashlane simulator"), "{essay}");
            assert_eq!(essay.matches("```").count(), 2);
        }
        assert!(essays.iter().any(|essay| *essay != essays[0]));
    }
}
