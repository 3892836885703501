//! The names of `src`: one name for each type, and none of the words that once stood here for the field's own terms.

use std::collections::{BTreeMap, BTreeSet};

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};

use crate::support::source::{self, is_test};

/// Words that no name has, with their inflections, and the field's term for what they meant.
const OLD_WORDS: &[(&str, &str)] = &[
    ("ear ears", "subscriptions"),
    ("patience", "timeout"),
    (
        "hold holds holding",
        "reorder buffer; for a verb: contain, have",
    ),
    ("held", "reorder buffer; for a verb: kept, owned, buffered"),
    ("floor floors", "start position"),
    ("parcel parcels", "frame, message"),
    ("gather gathers gathered gathering gatherer", "coalesce"),
    ("busiest", "top k"),
    ("law laws", "model tests, properties"),
    ("doorway doorways", "acceptor"),
    ("farewell farewells", "closing"),
    ("proven", "consistent read"),
    ("mark marks marked marking", "position; without_bom"),
    ("seat seats", "slot"),
    ("place places placed placing", "guard, slot, position"),
    ("permit permits", "guard"),
    ("entrance entrances", "guard"),
    ("arrival arrivals", "pending connection; received"),
    ("tell tells told", "report, send; known"),
    ("ask asks asked asking", "request, query"),
    ("anew", "again"),
    ("step steps stepped stepping", "phase"),
];

const TYPE_KEYWORDS: [&str; 5] = ["enum", "struct", "trait", "type", "union"];

/// What one file defines, outside of tests.
#[derive(Default)]
struct Definitions {
    types: Vec<String>,
    /// Modules, functions, methods, fields, variants, constants and variables.
    others: Vec<String>,
    /// The `impl` that is visited is of a trait.
    is_of_trait: bool,
}

impl Definitions {
    fn define_type(&mut self, ident: &syn::Ident) {
        self.types.push(ident.to_string());
    }

    fn define(&mut self, ident: &syn::Ident) {
        self.others.push(ident.to_string());
    }

    /// Nobody knows what a macro defines that stands where an item may. So each word of it counts, and what follows
    /// `enum` or the like is a type.
    fn define_all(&mut self, mut cursor: Cursor<'_>) {
        let mut is_type = false;
        while !cursor.eof() {
            if let Some((ident, next)) = cursor.ident() {
                if is_type {
                    self.define_type(&ident);
                } else {
                    self.define(&ident);
                }
                is_type = TYPE_KEYWORDS.iter().any(|keyword| ident == keyword);
                cursor = next;
                continue;
            }
            is_type = false;
            if let Some((inner, _, _, next)) = cursor.any_group() {
                self.define_all(inner);
                cursor = next;
            } else if let Some((_, next)) = cursor.token_tree() {
                cursor = next;
            }
        }
    }
}

impl<'ast> Visit<'ast> for Definitions {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, ident) = match item {
            syn::Item::Struct(item) => (&item.attrs, &item.ident),
            syn::Item::Enum(item) => (&item.attrs, &item.ident),
            syn::Item::Union(item) => (&item.attrs, &item.ident),
            syn::Item::Trait(item) => (&item.attrs, &item.ident),
            syn::Item::Type(item) => (&item.attrs, &item.ident),
            syn::Item::Mod(item) => (&item.attrs, &item.ident),
            syn::Item::Fn(item) => (&item.attrs, &item.sig.ident),
            syn::Item::Const(item) => (&item.attrs, &item.ident),
            syn::Item::Static(item) => (&item.attrs, &item.ident),
            syn::Item::Macro(item) => {
                self.define_all(TokenBuffer::new2(item.mac.tokens.clone()).begin());
                return;
            }
            syn::Item::Impl(item) => {
                if !is_test(&item.attrs) {
                    self.is_of_trait = item.trait_.is_some();
                    visit::visit_item_impl(self, item);
                }
                return;
            }
            _ => return,
        };
        if is_test(attributes) {
            return;
        }
        match item {
            syn::Item::Mod(_) | syn::Item::Fn(_) | syn::Item::Const(_) | syn::Item::Static(_) => {
                self.define(ident);
            }
            _ => self.define_type(ident),
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_test(&item.attrs) {
            return;
        }
        // The methods of a foreign trait have its names. Ours stand where the trait is.
        if !self.is_of_trait {
            self.define(&item.sig.ident);
        }
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.define(&item.ident);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.define(&item.sig.ident);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.define(&item.ident);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(ident) = &field.ident {
            self.define(ident);
        }
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        self.define(&pattern.ident);
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.define(&variant.ident);
        visit::visit_variant(self, variant);
    }
}

/// The parts of a name in snake or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in name.split('_') {
        let mut was_lower = false;
        let mut word = String::new();
        for char in part.chars() {
            if char.is_uppercase() && was_lower {
                words.push(std::mem::take(&mut word));
            }
            was_lower = char.is_lowercase();
            word.extend(char.to_lowercase());
        }
        words.push(word);
    }
    words
}

fn definitions() -> Vec<(String, Definitions)> {
    let files = source::files().into_iter().map(|(module, file)| {
        let mut definitions = Definitions::default();
        definitions.visit_file(&file);
        (module.join("::"), definitions)
    });
    files.collect()
}

#[test]
fn a_name_is_taken_apart_into_its_words() {
    for (name, expected) in [
        ("without_mark", vec!["without", "mark"]),
        ("HoldBudget", vec!["hold", "budget"]),
        ("PATIENCE_MAX", vec!["patience", "max"]),
        ("watermark", vec!["watermark"]),
    ] {
        assert_eq!(words(name), expected);
    }
}

#[test]
fn no_two_types_have_one_name() {
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, definitions) in definitions() {
        for name in definitions.types {
            modules.entry(name).or_default().insert(module.clone());
        }
    }
    assert!(modules.len() > 300, "only {} types", modules.len());
    // The arguments of a command are clap's, and always called so.
    modules.remove("Args");
    modules.retain(|_, modules| modules.len() > 1);
    assert!(modules.is_empty(), "types of one name: {modules:#?}");
}

#[test]
fn names_are_made_of_the_fields_terms() {
    let terms: BTreeMap<&str, &str> = OLD_WORDS
        .iter()
        .flat_map(|(words, term)| words.split(' ').map(move |word| (word, *term)))
        .collect();
    let mut found = BTreeSet::new();
    for (module, definitions) in definitions() {
        for name in definitions.types.iter().chain(&definitions.others) {
            for word in words(name) {
                if let Some(term) = terms.get(word.as_str()) {
                    found.insert(format!("`{name}` in {module}: instead of {word}, {term}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
