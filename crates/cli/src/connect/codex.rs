//! Codex's `config.toml`: what flashlane needs in it, how to put it there, and how to take it out again. Everything works on
//! text; nothing here knows where the file lies.

use crate::address::Address;
use toml_edit::{DocumentMut, Item, Table, TableLike, TomlError, value};

/// The provider's name in Codex's config.
const PROVIDER: &str = "flashlane";
const PROVIDERS: &str = "model_providers";
/// What flashlane sets at the top of the file.
const TOP: [&str; 2] = ["model", "model_provider"];

/// What Codex is told.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    pub address: &'a Address,
    pub model: &'a str,
    /// The environment variable that holds the key; `None` for a gateway that asks for none.
    pub api_key_env: Option<&'a str>,
}

/// `text` with Codex pointed at flashlane; comments and everything else stay. Applying it twice changes nothing more.
///
/// # Errors
/// When `text` is not TOML.
pub fn apply(text: &str, settings: &Settings<'_>) -> Result<String, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    replace(document.as_table_mut(), "model", value(settings.model));
    replace(document.as_table_mut(), "model_provider", value(PROVIDER));
    let providers = document.entry(PROVIDERS).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    if let Some(providers) = providers.as_table_like_mut() {
        replace(providers, PROVIDER, Item::Table(provider(settings)));
    }
    Ok(document.to_string())
}

fn provider(settings: &Settings<'_>) -> Table {
    let base = settings.address.http();
    let mut table = Table::new();
    table.insert("name", value("flashlane"));
    table.insert("base_url", value(&base));
    table.insert("wire_api", value("responses"));
    table.insert("supports_websockets", value(true));
    table.insert("model_catalog_url", value(format!("{base}/models")));
    match settings.api_key_env {
        Some(name) => table.insert("env_key", value(name)),
        // With neither of the two, Codex 0.169.0 does not ask for the catalog.
        None => table.insert("experimental_bearer_token", value("none")),
    };
    table
}

/// `current` with what [`apply`] set put back to what `original` had; what was changed elsewhere since then stays.
///
/// # Errors
/// When one of the two is not TOML.
pub fn revert(current: &str, original: &str) -> Result<String, TomlError> {
    let mut document: DocumentMut = current.parse()?;
    let original: DocumentMut = original.parse()?;
    for key in TOP {
        match original.get(key) {
            Some(item) => replace(document.as_table_mut(), key, item.clone()),
            None => drop(document.remove(key)),
        }
    }
    let before = original.get(PROVIDERS).and_then(Item::as_table_like);
    if let Some(providers) = document.get_mut(PROVIDERS).and_then(Item::as_table_like_mut) {
        match before.and_then(|providers| providers.get(PROVIDER)) {
            Some(item) => replace(providers, PROVIDER, item.clone()),
            None => drop(providers.remove(PROVIDER)),
        }
        if providers.is_empty() && before.is_none() {
            document.remove(PROVIDERS);
        }
    }
    Ok(document.to_string())
}

/// Sets an item and keeps the spaces and comments around the one that was there.
fn replace(table: &mut dyn TableLike, key: &str, mut item: Item) {
    let Some(old) = table.get_mut(key) else {
        table.insert(key, item);
        return;
    };
    match (&*old, &mut item) {
        (Item::Value(old), Item::Value(new)) => *new.decor_mut() = old.decor().clone(),
        (Item::Table(old), Item::Table(new)) => {
            *new.decor_mut() = old.decor().clone();
            new.set_position(old.position());
        }
        (Item::None | Item::Value(_) | Item::Table(_) | Item::ArrayOfTables(_), _) => {}
    }
    *old = item;
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"# my settings
model = "gpt-5.5" # the good one
approval_policy = "on-request"

[model_providers.local] # at home
name = "local"
base_url = "http://localhost:1234/v1"

[features]
plugins = false
"#;

    fn applied(text: &str) -> String {
        let address = "127.0.0.1:8700".parse().unwrap();
        apply(text, &Settings { address: &address, model: "gpt-5.3-codex-spark", api_key_env: None }).unwrap()
    }

    #[test]
    fn an_empty_config_becomes_the_block_that_is_printed() {
        assert_eq!(
            applied(""),
            r#"model = "gpt-5.3-codex-spark"
model_provider = "flashlane"

[model_providers.flashlane]
name = "flashlane"
base_url = "http://127.0.0.1:8700/v1"
wire_api = "responses"
supports_websockets = true
model_catalog_url = "http://127.0.0.1:8700/v1/models"
experimental_bearer_token = "none"
"#
        );
    }

    #[test]
    fn comments_and_everything_else_stay() {
        let after = applied(BEFORE);
        assert!(after.starts_with("# my settings\nmodel = \"gpt-5.3-codex-spark\" # the good one\n"), "{after}");
        for kept in
            ["approval_policy = \"on-request\"", "[model_providers.local] # at home", "[features]\nplugins = false"]
        {
            assert!(after.contains(kept), "{kept} is missing in\n{after}");
        }
    }

    #[test]
    fn applying_twice_changes_nothing_more() {
        for text in ["", BEFORE, "# only a comment\n"] {
            assert_eq!(applied(&applied(text)), applied(text));
        }
    }

    #[test]
    fn reverting_gives_the_original_back() {
        let inline = "model_providers = { local = { name = \"local\" } }\n";
        let own =
            "model = \"a\"\nmodel_provider = \"flashlane\" # mine\n[model_providers.flashlane]\nname = \"mine\"\n";
        for text in ["", BEFORE, "# only a comment\n", inline, own] {
            assert_eq!(revert(&applied(text), text).unwrap(), text);
        }
    }

    #[test]
    fn reverting_keeps_what_was_changed_since() {
        let changed = applied(BEFORE).replace("plugins = false", "plugins = true");
        assert_eq!(revert(&changed, BEFORE).unwrap(), BEFORE.replace("plugins = false", "plugins = true"));
    }

    #[test]
    fn a_key_variable_takes_the_place_of_the_placeholder() {
        let address = "https://flash.example/v1".parse().unwrap();
        let settings = Settings { address: &address, model: "m", api_key_env: Some("FLASHLANE_API_KEY") };
        let text = apply("", &settings).unwrap();
        assert!(text.contains("env_key = \"FLASHLANE_API_KEY\"") && !text.contains("experimental_bearer_token"));
    }

    #[test]
    fn what_is_not_toml_is_left_alone() {
        let address = "127.0.0.1:8700".parse().unwrap();
        let settings = Settings { address: &address, model: "m", api_key_env: None };
        assert!(apply("model = ", &settings).is_err());
    }
}
