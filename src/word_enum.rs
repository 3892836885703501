//! Enums with a word for each variant: words of the contract, and the labels of metrics.

/// Declares an enum with a word for each variant: `ALL` has them in their order, `as_str` gives the word.
macro_rules! word_enum {
    ($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$doc])* $variant,)*
        }

        #[allow(dead_code, reason = "some are only written, or only read")]
        impl $name {
            /// All of them, in their order.
            $vis const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The word.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What this word stands for.
            $vis fn parse(word: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|known| known.as_str() == word)
            }
        }
    };
}

pub(crate) use word_enum;
