//! What a turn sends, as far as a prefix cache sees it, and such a cache: instructions that many conversations begin with, then a
//! conversation that only grows. Knows no texts.

use std::collections::BTreeMap;

/// A prompt in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// Another one after a compaction, which keeps nothing of what came before it.
    pub conversation: u64,
    /// Which instructions it begins with.
    pub kind: u32,
    /// Tokens of these.
    pub shared: u64,
    /// Tokens of the conversation after them.
    pub own: u64,
}

impl Prompt {
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.shared + self.own
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Kind(u32),
    Conversation(u64),
}

/// An engine's prefix cache: so many tokens, the least recently used leave first.
#[derive(Debug)]
pub struct PrefixCache {
    tokens_max: u64,
    tokens: u64,
    uses: u64,
    /// Tokens of each prefix, and when it was used.
    held: BTreeMap<Name, (u64, u64)>,
    by_use: BTreeMap<u64, Name>,
}

impl PrefixCache {
    #[must_use]
    pub fn new(tokens_max: u64) -> Self {
        Self { tokens_max, tokens: 0, uses: 0, held: BTreeMap::new(), by_use: BTreeMap::new() }
    }

    /// Tokens of a prompt that are there.
    #[must_use]
    pub fn find(&self, prompt: &Prompt) -> u64 {
        let tokens = |name| self.held.get(&name).map_or(0, |(tokens, _)| *tokens);
        let shared = tokens(Name::Kind(prompt.kind)).min(prompt.shared);
        if shared < prompt.shared {
            return shared;
        }
        shared + tokens(Name::Conversation(prompt.conversation)).min(prompt.own)
    }

    /// A prompt is read, or has grown: tokens of it that were there. It is there from now on.
    pub fn take(&mut self, prompt: &Prompt) -> u64 {
        let found = self.find(prompt);
        self.hold(Name::Kind(prompt.kind), prompt.shared);
        self.hold(Name::Conversation(prompt.conversation), prompt.own);
        while self.tokens > self.tokens_max {
            let Some((_, name)) = self.by_use.pop_first() else { break };
            self.tokens -= self.held.remove(&name).map_or(0, |(tokens, _)| tokens);
        }
        found
    }

    fn hold(&mut self, name: Name, tokens: u64) {
        self.uses += 1;
        let (before, used) = self.held.insert(name, (tokens, self.uses)).unwrap_or_default();
        self.by_use.remove(&used);
        self.by_use.insert(self.uses, name);
        self.tokens = self.tokens + tokens - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(conversation: u64, own: u64) -> Prompt {
        Prompt { conversation, kind: 0, shared: 10, own }
    }

    #[test]
    fn a_conversation_finds_what_it_sent_and_a_new_one_the_instructions() {
        let mut cache = PrefixCache::new(1_000);
        assert_eq!(cache.take(&prompt(1, 50)), 0);
        assert_eq!(cache.take(&prompt(1, 70)), 60);
        assert_eq!(cache.take(&prompt(2, 70)), 10);
        assert_eq!(cache.find(&Prompt { kind: 1, ..prompt(1, 70) }), 0);
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let mut cache = PrefixCache::new(120);
        cache.take(&prompt(1, 50));
        cache.take(&prompt(2, 50));
        cache.take(&prompt(1, 50));
        cache.take(&prompt(3, 50));
        assert_eq!([1, 2, 3].map(|n| cache.find(&prompt(n, 50))), [60, 10, 60]);
        assert_eq!(cache.tokens, 110);
    }
}
