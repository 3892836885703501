//! The snippets of the public contract, cut out of its text as they stand there.

/// The contract, word for word.
pub(crate) const CONTRACT: &str = include_str!("../../../docs/contract.txt");

/// The host that the snippets name, with its scheme.
const HOST: &str = "wss://ws.centrali.io/";

/// What stands for a token in the snippets that have it as a literal.
const TOKEN: &str = "'YOUR_JWT_TOKEN'";

/// The workspace that every snippet names.
const WORKSPACE: &str = "'my-workspace'";

/// One of the contract's clients.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Snippet {
    /// "Native WebSocket (JavaScript)".
    Native,
    /// "Using with a WebSocket Library".
    Library,
    /// "React Example".
    React,
    /// "Reconnection Strategy".
    Manager,
}

impl Snippet {
    /// Its text in the contract, from its first line to the heading that follows.
    pub(crate) fn text(self) -> &'static str {
        let (first, next_heading) = match self {
            Self::Native => (
                "// Create WebSocket connection\n",
                "Using with a WebSocket Library¶\n",
            ),
            Self::Library => ("// Using the 'ws' library in Node.js\n", "React Example¶\n"),
            Self::React => (
                "import { useEffect, useState } from 'react';\n",
                "Notification Structure¶\n",
            ),
            Self::Manager => ("class NotificationManager {\n", "Best Practices¶\n"),
        };
        let start = CONTRACT.find(first).expect("the first line");
        let (_, from) = CONTRACT.split_at(start);
        from.split_once(next_heading).expect("the next heading").0
    }

    /// The snippet with the gateway's host, and a token where it has a literal one.
    pub(crate) fn for_gateway(self, port: u16, token: &str) -> Text {
        let text = Text(self.text().to_owned()).with(HOST, &format!("wss://localhost:{port}/"));
        match self {
            Self::Native | Self::Library => text.with(TOKEN, &format!("'{token}'")),
            Self::React | Self::Manager => text,
        }
    }
}

/// A snippet that can be run.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) String);

impl Text {
    /// The same for another workspace than the one it names.
    pub(crate) fn in_workspace(self, slug: &str) -> Self {
        self.with(WORKSPACE, &format!("'{slug}'"))
    }

    /// Replaces the one occurrence of `old`.
    fn with(self, old: &str, new: &str) -> Self {
        assert_eq!(self.0.matches(old).count(), 1, "{old} in\n{}", self.0);
        Self(self.0.replace(old, new))
    }
}
