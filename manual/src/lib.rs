//! What an installed program brings besides itself: man pages, and completions for bash, zsh and fish, from its command line.

use clap::Command;
use clap_complete::{Shell, generate_to};
use std::fs;
use std::io;
use std::path::Path;

/// Where each shell looks for completions, below `share`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Writes the man pages of a program and its subcommands, and its completions, into an installation's `share`. Subcommands that
/// are hidden from the help get no page.
pub fn write(mut program: Command, share: &Path) -> io::Result<()> {
    let name = program.get_name().to_owned();
    for (shell, place) in COMPLETIONS {
        let place = share.join(place);
        fs::create_dir_all(&place)?;
        let written = generate_to(shell, &mut program, &name, &place)?;
        if shell == Shell::Bash {
            // Found by the name of the command, without an ending.
            fs::rename(written, place.join(&name))?;
        }
    }
    let place = share.join("man/man1");
    fs::create_dir_all(&place)?;
    clap_mangen::generate_to(program, &place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_completions_lie_where_they_are_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let hidden = Command::new("secret").hide(true);
        let program =
            Command::new("tool").about("Does it").subcommand(Command::new("run").about("Runs")).subcommand(hidden);
        write(program, folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(read("man/man1/tool.1").contains("Does it") && read("man/man1/tool-run.1").contains("Runs"));
        assert!(!folder.path().join("man/man1/tool-secret.1").exists());
        for name in
            ["bash-completion/completions/tool", "zsh/site-functions/_tool", "fish/vendor_completions.d/tool.fish"]
        {
            assert!(read(name).contains("run"), "{name}");
        }
    }
}
