//! The guides can be read by those whose first language is another one: no sentence has over 30 words, and
//! those of the README have some 15.

use std::path::{Path, PathBuf};

const WORDS_MAX: usize = 30;
const README_AVERAGE_MAX: usize = 15;

#[test]
fn no_sentence_of_the_guides_is_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for page in pages(root) {
        let text = std::fs::read_to_string(&page).expect("the page is there");
        let lengths: Vec<usize> = parts(&text)
            .into_iter()
            .flat_map(|(line, part)| {
                let found = sentences(&part);
                let over = found.iter().filter(|(words, _)| *words > WORDS_MAX);
                let page = page.display();
                long.extend(
                    over.map(|(words, text)| format!("{page}:{line}: {words} words: {text}")),
                );
                found.into_iter().map(|(words, _)| words)
            })
            .collect();
        assert!(!lengths.is_empty(), "{} has no text", page.display());
        if page == root.join("README.md") {
            let average = lengths.iter().sum::<usize>() / lengths.len();
            assert!(
                average <= README_AVERAGE_MAX,
                "README.md: {average} words a sentence"
            );
        }
    }
    assert!(
        long.is_empty(),
        "over {WORDS_MAX} words:\n{}",
        long.join("\n")
    );
}

/// The pages that people read: those at the top, and the guides.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [
        "",
        "docs",
        "tests/clients",
        "bench",
        "bench/peers",
        "sdk/js",
        "vendor",
    ]
    .iter()
    .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("the folder is there"))
    .map(|entry| entry.expect("an entry").path())
    .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    .collect();
    pages.sort();
    pages
}

/// The paragraphs, items of lists and cells of tables, each with its line. Code is none of them, nor are headings.
fn parts(text: &str) -> Vec<(usize, String)> {
    let mut parts: Vec<(usize, String)> = Vec::new();
    let (mut is_code, mut goes_on) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            is_code = !is_code;
            goes_on = false;
        } else if is_code || trimmed.is_empty() || trimmed.starts_with(['#', '<']) {
            goes_on = false;
        } else if trimmed.starts_with('|') {
            parts.extend(trimmed.split('|').map(|cell| (number, cell.to_owned())));
            goes_on = false;
        } else if !goes_on && line.starts_with("    ") {
            // A block of code by its indentation.
        } else if goes_on && item(trimmed).is_none() {
            let (_, part) = parts.last_mut().expect("it goes on");
            part.push(' ');
            part.push_str(trimmed);
        } else {
            parts.push((number, item(trimmed).unwrap_or(trimmed).to_owned()));
            goes_on = true;
        }
    }
    parts
}

/// The text of an item of a list.
fn item(line: &str) -> Option<&str> {
    let (mark, text) = line.split_once(' ')?;
    let number = mark.strip_suffix('.').unwrap_or_default();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number || ["-", "*"].contains(&mark)).then_some(text)
}

/// The sentences of a part, each with the number of its words. An address of a link is part of a word.
fn sentences(part: &str) -> Vec<(usize, String)> {
    let mut sentences = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut rest = part.split_whitespace().peekable();
    while let Some(word) = rest.next() {
        words.push(word);
        let is_end = word
            .trim_end_matches(['"', '\'', ')', '*', '_', '`'])
            .ends_with(['.', '!', '?']);
        // A name such as `docs.rs` may end in a small word: "See rules.md. herald check …" is one sentence.
        let is_new = rest
            .peek()
            .is_none_or(|next| !next.starts_with(char::is_lowercase));
        if rest.peek().is_none() || (is_end && is_new) {
            let count = words
                .iter()
                .filter(|word| word.contains(char::is_alphanumeric))
                .count();
            if count > 0 {
                sentences.push((count, words.join(" ")));
            }
            words.clear();
        }
    }
    sentences
}

#[test]
fn sentences_are_counted() {
    let text = "# A heading is none\n\n1. One `two.three` – [four](five six.md). Seven\n   eight!\n\n```sh\nno code\n```\n| nine | ten. 11 |\n";
    let counts: Vec<usize> = parts(text)
        .iter()
        .flat_map(|(_, part)| sentences(part))
        .map(|(words, _)| words)
        .collect();
    assert_eq!(counts, [4, 2, 1, 1, 1]);
}
