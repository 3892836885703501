//! The marker in an event's title, by which it is found in whatever encoding a server sends. Pure.

use memchr::memmem::Finder;

/// Where an event belongs: its room, and its number in that room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    pub room: u32,
    pub sequence: u32,
}

/// Finds the markers of one run.
#[derive(Debug)]
pub struct Markers {
    run: String,
    finder: Finder<'static>,
    prefix: usize,
}

impl Markers {
    /// Those of the run of this name: letters and digits.
    pub fn new(run: &str) -> Self {
        let prefix = format!("bench:{run}:");
        Self {
            run: run.to_owned(),
            finder: Finder::new(&prefix).into_owned(),
            prefix: prefix.len(),
        }
    }

    /// An event of `bytes` bytes, or a few more if it needs them.
    pub fn event(&self, mark: Mark, bytes: usize) -> String {
        let Mark { room, sequence } = mark;
        let run = &self.run;
        let head = format!(r#"{{"title":"bench:{run}:{room}:{sequence}:","message":""#);
        let end = "\"}";
        let padding = bytes.saturating_sub(head.len() + end.len()).max(1);
        format!("{head}{}{end}", "x".repeat(padding))
    }

    /// Calls `found` for each marker in `bytes`.
    pub fn find(&self, bytes: &[u8], mut found: impl FnMut(Mark)) {
        let mut rest = bytes;
        while let Some(at) = self.finder.find(rest) {
            rest = rest.get(at + self.prefix..).unwrap_or_default();
            let Some((room, behind)) = number(rest) else {
                continue;
            };
            let Some((sequence, behind)) = number(behind) else {
                continue;
            };
            rest = behind;
            found(Mark { room, sequence });
        }
    }
}

/// The digits up to a colon, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u32;
    let mut rest = bytes;
    let mut digits = 0;
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
                digits += 1;
            }
            b':' if digits > 0 => return Some((value, rest)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_marker_is_found_in_any_encoding_and_no_other() {
        let markers = Markers::new("r1");
        let mark = |room, sequence| Mark { room, sequence };
        let event = markers.event(mark(7, 4_000_000_000), 530);
        assert_eq!(event.len(), 530);
        for (bytes, expected) in [
            (event.as_str(), vec![mark(7, 4_000_000_000)]),
            (
                "\u{1}bench:r1:0:1:\u{0}bench:r1:0:2:",
                vec![mark(0, 1), mark(0, 2)],
            ),
            (
                "bench:r2:0:1: bench:r1:x:1: bench:r1::1: bench:r1:0:1",
                vec![],
            ),
            ("bench:r1:99999999999:1:", vec![]),
            ("bench:r1:bench:r1:3:4:", vec![mark(3, 4)]),
            ("", vec![]),
        ] {
            let mut found = Vec::new();
            markers.find(bytes.as_bytes(), |mark| found.push(mark));
            assert_eq!(found, expected, "{bytes}");
        }
    }
}
