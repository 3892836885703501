//! The examples in docs/: code blocks that a comment before them names.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::clients::{node, python};
use super::command::{Output, finish};

/// A code block that can be run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example {
    /// Its file name; the extension says who runs it.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// Every block in `guide` that has a name, as each of JavaScript or Python must have.
pub(crate) fn examples(guide: &'static str) -> Vec<Example> {
    let mut blocks = guide.split("\n```");
    let mut before = blocks.next().unwrap_or_default();
    let mut examples = Vec::new();
    // A block's text and what stands between it and the next one alternate.
    while let (Some(block), Some(after)) = (blocks.next(), blocks.next()) {
        let (language, text) = block.split_once('\n').expect("a block has lines");
        let name = before
            .lines()
            .next_back()
            .and_then(|line| line.strip_prefix("<!-- example: ")?.strip_suffix(" -->"));
        match name {
            Some(name) => examples.push(Example { name, text }),
            None if matches!(language, "js" | "javascript" | "python") => {
                panic!("no comment `<!-- example: NAME -->` before the block\n{text}");
            }
            None => {}
        }
        before = after;
    }
    examples
}

impl Example {
    /// The one called `name`.
    pub(crate) fn named(guide: &'static str, name: &str) -> Self {
        let found = examples(guide)
            .into_iter()
            .find(|example| example.name == name);
        found.unwrap_or_else(|| panic!("no example {name}"))
    }

    /// Runs it to its end in `folder`, in which Node finds the packages.
    pub(crate) async fn run(&self, folder: &Path, environment: &[(&str, String)]) -> Output {
        self.run_within("", "", folder, environment).await
    }

    /// The same with code around it.
    pub(crate) async fn run_within(
        &self,
        before: &str,
        after: &str,
        folder: &Path,
        environment: &[(&str, String)],
    ) -> Output {
        let file = self.write(before, after, folder);
        finish(self.of_file(&file, folder, environment)).await.ok()
    }

    /// The command that runs it in `folder`.
    pub(crate) fn command(
        &self,
        folder: &Path,
        environment: &[(&str, String)],
    ) -> tokio::process::Command {
        self.of_file(&self.write("", "", folder), folder, environment)
    }

    fn write(&self, before: &str, after: &str, folder: &Path) -> PathBuf {
        let file = folder.join(self.name);
        std::fs::write(&file, format!("{before}{}\n{after}", self.text)).expect("a file");
        file
    }

    fn of_file(
        &self,
        file: &Path,
        folder: &Path,
        environment: &[(&str, String)],
    ) -> tokio::process::Command {
        let command = match file.extension().and_then(|extension| extension.to_str()) {
            Some("mjs") => node(),
            Some("py") => python(),
            Some("sh") => Command::new("sh"),
            Some("php") => Command::new("php"),
            _ => panic!("nothing runs {}", self.name),
        };
        let mut command = tokio::process::Command::from(command);
        command
            .arg(file)
            .current_dir(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
