//! `flashlane completions`: shell completions of the whole command. Knows nothing of the verbs themselves.

use std::io::{self, Write};

/// Arguments of `flashlane completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  flashlane completions bash > ~/.local/share/bash-completion/completions/flashlane
  flashlane completions zsh > ~/.zfunc/_flashlane
  flashlane completions fish > ~/.config/fish/completions/flashlane.fish")]
pub struct Args {
    /// The shell to write them for
    shell: clap_complete::Shell,
}

/// Prints the completions of `command`.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: &Args, mut command: clap::Command) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "flashlane", &mut script);
    io::stdout().lock().write_all(&script)
}
