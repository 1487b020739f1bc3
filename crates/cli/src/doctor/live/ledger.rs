//! What the questions cost: no question is asked that could pass the cap. Knows no question.

/// Tokens, prompts and answers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    pub tokens_max: u64,
    pub spent: u64,
}

impl Ledger {
    pub fn new(tokens_max: u64) -> Self {
        Self { tokens_max, spent: 0 }
    }

    /// # Errors
    /// A question of so many tokens could pass the cap; why, for people.
    pub fn allow(&self, tokens: u64) -> Result<(), String> {
        let (spent, tokens_max) = (self.spent, self.tokens_max);
        match spent.saturating_add(tokens) <= tokens_max {
            true => Ok(()),
            false => {
                Err(format!("not asked: it may cost {tokens} tokens, {spent} of {tokens_max} are spent (--tokens-max)"))
            }
        }
    }

    pub fn spend(&mut self, tokens: u64) {
        self.spent = self.spent.saturating_add(tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_may_be_reached_and_not_passed() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.allow(100).is_ok() && ledger.allow(101).is_err());
        ledger.spend(60);
        assert!(ledger.allow(40).is_ok());
        assert!(ledger.allow(41).unwrap_err().contains("60 of 100"));
    }
}
