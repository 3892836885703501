//! The files of `src`, parsed, each with its module. Tests are left out.

use std::path::{Path, PathBuf};

/// A module's path from the crate's root.
pub(crate) type Module = Vec<String>;

/// Each file that `lib.rs` leads to, in the order of the `mod` lines.
pub(crate) fn files() -> Vec<(Module, syn::File)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    read(&source, &source.join("lib.rs"), &[], &mut files);
    files
}

fn read(source: &Path, file: &Path, module: &[String], files: &mut Vec<(Module, syn::File)>) {
    let text = std::fs::read_to_string(file).expect("a file of src");
    let parsed = syn::parse_file(&text).expect("it compiles");
    let declared = declared(&parsed);
    files.push((module.to_vec(), parsed));
    for name in declared {
        let inner = [module, &[name]].concat();
        let base: PathBuf = source.join(inner.join("/"));
        let candidates = [base.with_extension("rs"), base.join("mod.rs")];
        if let Some(file) = candidates.iter().find(|file| file.is_file()) {
            read(source, file, &inner, files);
        }
    }
}

/// The modules that a file declares, in its order.
pub(crate) fn declared(file: &syn::File) -> Vec<String> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) if !is_test(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// Whether what has these attributes is only in a build for tests.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}
