//! What clients say, and what the simulator then answers, word for word. Knows nothing of how either travels.

use crate::world::Chance;

/// Some words, and the whole answer to them.
#[derive(Debug, Clone)]
pub struct Ask {
    pub words: String,
    pub answer: String,
}

impl Ask {
    /// Some numbers in their order.
    pub fn count(chance: &mut Chance) -> Self {
        let from = chance.within(1, 900);
        Self::counted(from, from + chance.within(1, 30))
    }

    /// So many that there is time to end it before its end.
    pub fn long() -> Self {
        Self::counted(1, 3000)
    }

    /// Something that is to be remembered in its conversation.
    pub fn tell(code: u64) -> Self {
        Self { words: format!("say exactly: my code is k{code}."), answer: format!("my code is k{code}.") }
    }

    /// What was told by [`Ask::tell`].
    pub fn recall(code: u64) -> Self {
        Self { words: "what is my code?".to_owned(), answer: format!("Your code is k{code}.") }
    }

    fn counted(from: u64, to: u64) -> Self {
        let numbers: Vec<String> = (from..=to).map(|number| number.to_string()).collect();
        Self { words: format!("count from {from} to {to}"), answer: numbers.join("\n") }
    }
}
