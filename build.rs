//! Lists Herald's modules, which are the targets of its log lines: a log filter that names another one
//! would match nothing, and is refused.

#![allow(
    clippy::print_stdout,
    reason = "it is how a build script talks to cargo"
)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    let mut modules = Vec::new();
    list(Path::new("src"), "herald", &mut modules)?;
    modules.sort();
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(
        PathBuf::from(out).join("modules.rs"),
        format!("&{modules:?}"),
    )
}

fn list(folder: &Path, module: &str, modules: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A folder without it has no sources.
        let is_folder = path.join("mod.rs").is_file();
        let is_source = path.extension() == Some(OsStr::new("rs"));
        let name = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        if matches!(name, "mod" | "lib" | "main" | "tests") || !(is_folder || is_source) {
            continue;
        }
        let module = format!("{module}::{name}");
        if is_folder {
            list(&path, &module, modules)?;
        }
        modules.push(module);
    }
    Ok(())
}
