//! Applications with `herald-client`: the pages of docs/clients.md, built by Vite with what `npm pack` gives, and
//! other programs that run JavaScript.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::super::example::{Example, examples};
use super::super::skipped;
use super::{CLIENTS, TOOLS, content, install, must, node_version, sdk_js};

/// The guide with the pages.
pub(crate) const GUIDE: &str = include_str!("../../../../docs/clients.md");

/// The oldest Node that Vite runs on.
const NODE_WITH_VITE: (u32, u32) = (20, 19);

/// What of the guide is part of an application, and where.
const PARTS: [(&str, &str); 5] = [
    ("plain.html", "public"),
    ("Notifications.jsx", "src"),
    ("Notifications.vue", "src"),
    ("Notifications.svelte", "src"),
    ("herald.js", "src"),
];

/// The folder of the applications, with their packages and the package: ready for `vite`. `None`, and a line that
/// says so, where Node is too old for that.
pub(crate) fn source() -> Option<&'static Path> {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    if node_version() < NODE_WITH_VITE {
        skipped("Vite needs Node 20.19");
        return None;
    }
    Some(MADE.get_or_init(make))
}

/// The pages as a browser gets them.
pub(crate) fn built() -> Option<PathBuf> {
    let folder = source()?;
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let stamp = fs::read(folder.join("node_modules/herald-client/.herald-made-from"));
        install(&folder.join("dist"), &stamp.expect("a stamp"), || {
            let vite = folder.join("node_modules/vite/bin/vite.js");
            must(
                Command::new("node")
                    .arg(vite)
                    .arg("build")
                    .current_dir(folder),
            );
        });
    });
    Some(folder.join("dist"))
}

fn make() -> PathBuf {
    let from = Path::new(CLIENTS).join("apps");
    let sdk = sdk_js();
    let example = sdk.join("examples/react");
    let folder = Path::new(TOOLS).join("apps");
    let lock = fs::read(from.join("package-lock.json")).expect("package-lock.json");
    fs::create_dir_all(&folder).expect("a folder");
    install(&folder.join("node_modules"), &lock, || {
        copy(&from, &folder);
        must(Command::new("npm").arg("ci").current_dir(&folder));
    });
    let mut wanted = lock;
    for part in [&from, &from.join("src"), &example, &sdk.join("dist")] {
        wanted.extend(content(part));
    }
    for (name, _) in PARTS {
        wanted.extend(Example::named(GUIDE, name).text.bytes());
    }
    let package = folder.join("node_modules/herald-client");
    install(&package, &wanted, || {
        copy(&from, &folder);
        copy(&from.join("src"), &folder.join("src"));
        copy(&example, &folder.join("example"));
        for (name, part) in PARTS {
            let part = folder.join(part);
            fs::create_dir_all(&part).expect("a folder");
            fs::write(part.join(name), Example::named(GUIDE, name).text).expect("a file");
        }
        unpack(&folder);
        // As the guide says.
        let file = package.join("dist/index.js");
        fs::copy(file, folder.join("public/herald-client.js")).expect("a copy");
    });
    folder
}

/// What `npm pack` gives, in a folder of its own; its file.
pub(crate) fn pack(to: &Path) -> PathBuf {
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]);
    let output = npm.arg(to).current_dir(sdk_js()).output().expect("it runs");
    assert!(output.status.success(), "npm pack: {output:?}");
    to.join(String::from_utf8_lossy(&output.stdout).trim())
}

/// Installs what `npm pack` gives into an application.
fn unpack(folder: &Path) {
    let packed = tempfile::tempdir().expect("a temporary folder");
    let file = pack(packed.path());
    let package = folder.join("node_modules/herald-client");
    if package.exists() {
        // The same version, and other content: npm would take it for the same.
        fs::remove_dir_all(&package).expect("it is removed");
    }
    fs::create_dir_all(&package).expect("a folder");
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(file)
        .args(["--strip-components=1", "-C"]);
    must(tar.arg(&package));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file").path();
        if file.is_file() {
            let name = file.file_name().expect("a name");
            fs::copy(&file, to.join(name)).expect("a copy");
        }
    }
}

/// Node 22, Deno and Bun: the folder of their commands.
pub(crate) fn runtimes() -> PathBuf {
    let from = Path::new(CLIENTS).join("runtimes");
    let folder = Path::new(TOOLS).join("runtimes");
    let lock = fs::read(from.join("package-lock.json")).expect("package-lock.json");
    fs::create_dir_all(&folder).expect("a folder");
    install(&folder.join("node_modules"), &lock, || {
        copy(&from, &folder);
        must(Command::new("npm").arg("ci").current_dir(&folder));
    });
    folder.join("node_modules/.bin")
}

/// The names of the guide's examples that stand in an application.
pub(crate) fn parts() -> impl Iterator<Item = &'static str> {
    let names = examples(GUIDE).into_iter().map(|example| example.name);
    names.filter(|name| PARTS.iter().any(|(part, _)| part == name))
}
