//! Programs that are not Herald's own: Node, Python and Go with the packages of `tests/clients/`.
//!
//! What is missing there is installed once, under a lock, so that `cargo test` alone is enough and
//! several test processes do not get into each other's way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub(crate) mod apps;
pub(crate) mod script;

/// The folder of the clients.
pub(crate) const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// Where what the tests install themselves goes, beside `node_modules`.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools");

/// The oldest Node that has a WebSocket of its own (`--experimental-websocket`).
const NODE_MIN: (u32, u32) = (20, 10);

/// The first Node that has it without the flag.
const NODE_WITH_WEBSOCKET: u32 = 22;

/// `node` with its own WebSocket, and the packages installed.
pub(crate) fn node() -> Command {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    let major = *MAJOR.get_or_init(|| {
        let (major, _) = node_version();
        install_packages();
        major
    });
    let mut command = Command::new("node");
    if major < NODE_WITH_WEBSOCKET {
        command.args(["--experimental-websocket", "--no-warnings"]);
    }
    command
}

/// The Python of a virtual environment with the packages installed.
pub(crate) fn python() -> Command {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PYTHON.get_or_init(install_python))
}

/// Schemathesis, which tries a service by its OpenAPI document.
pub(crate) fn schemathesis() -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let install = || environment("schemathesis", "schemathesis.txt");
    Command::new(FOLDER.get_or_init(install).join("schemathesis"))
}

/// The program of `tests/clients/sdk-go`, built.
pub(crate) fn sdk_go() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PROGRAM.get_or_init(build_sdk_go))
}

/// The folder of `herald-client`, with its packages installed and its `dist/` built.
pub(crate) fn sdk_js() -> &'static Path {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/js");
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = Path::new(FOLDER);
    BUILT.get_or_init(|| {
        node_version();
        let read = |name: &str| fs::read(folder.join(name)).expect("a file of the package");
        let lock = read("package-lock.json");
        install(&folder.join("node_modules"), &lock, || {
            must(Command::new("npm").arg("ci").current_dir(folder));
        });
        let mut sources = lock;
        for part in ["package.json", "tsconfig.json"] {
            sources.extend(read(part));
        }
        for part in ["src", "scripts", "pages"] {
            sources.extend(content(&folder.join(part)));
        }
        install(&folder.join("dist"), &sources, || {
            for script in ["build", "pages"] {
                must(
                    Command::new("npm")
                        .args(["run", "--silent", script])
                        .current_dir(folder),
                );
            }
        });
    });
    folder
}

/// All files of a folder, one after the other.
fn content(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let files = files.into_iter().filter(|file| file.is_file());
    files
        .flat_map(|file| fs::read(file).expect("a file"))
        .collect()
}

/// An empty folder in which a script finds the packages.
pub(crate) fn folder_with_packages() -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("herald-test-clients-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a temporary folder");
    let modules = Path::new(CLIENTS).join("node_modules");
    // Node looks for packages from where a script lies upwards, and nowhere else.
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).expect("a link");
    folder
}

/// Node's major and minor version, if it is new enough.
fn node_version() -> (u32, u32) {
    let needed = format!(
        "the tests with real clients need Node {}.{} or newer",
        NODE_MIN.0, NODE_MIN.1
    );
    let output = match Command::new("node").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => panic!("{needed} on PATH: {error}"),
    };
    let mut parts = output.trim_start_matches('v').split('.');
    let mut part = || parts.next()?.parse::<u32>().ok();
    match (part(), part()) {
        (Some(major), Some(minor)) if (major, minor) >= NODE_MIN => (major, minor),
        _ => panic!("{needed}; `node` on PATH is {output:?}"),
    }
}

/// Runs `npm ci` unless the packages of this lock file are there.
pub(crate) fn install_packages() {
    let folder = Path::new(CLIENTS);
    let wanted = fs::read(folder.join("package-lock.json")).expect("package-lock.json");
    install(&folder.join("node_modules"), &wanted, || {
        let mut npm = Command::new("npm");
        must(npm.arg("ci").current_dir(folder));
    });
}

/// Makes the virtual environment of the tests unless it is there; returns its Python.
fn install_python() -> PathBuf {
    environment("python", "requirements.txt").join("python")
}

/// Makes the virtual environment `name` unless it is there; returns the folder of its programs.
fn environment(name: &str, requirements: &str) -> PathBuf {
    let folder = Path::new(TOOLS).join(name);
    let programs = folder.join("bin");
    let python = programs.join("python");
    let requirements = Path::new(CLIENTS).join(requirements);
    let wanted = fs::read(&requirements).expect("requirements.txt");
    install(&folder, &wanted, || {
        let mut venv = Command::new("python3");
        must(venv.args(["-m", "venv", "--clear"]).arg(&folder));
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        must(pip.arg("--requirement").arg(&requirements));
    });
    programs
}

/// Builds the Go program unless it is there; returns it.
fn build_sdk_go() -> PathBuf {
    let source = Path::new(CLIENTS).join("sdk-go");
    let main = fs::read_to_string(source.join("main.go")).expect("a program");
    go_program("sdk-go", &main)
}

/// The program `main` of Go, built with the modules of the folder `name` of the clients.
pub(crate) fn go_program(name: &str, main: &str) -> PathBuf {
    let source = Path::new(CLIENTS).join(name);
    let folder = Path::new(TOOLS).join(name);
    let program = folder.join("program");
    let sums = fs::read_to_string(source.join("go.sum")).expect("go.sum");
    install(&folder, format!("{main}{sums}").as_bytes(), || {
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("main.go"), main).expect("a file");
        for file in ["go.mod", "go.sum"] {
            fs::copy(source.join(file), folder.join(file)).expect("a copy");
        }
        let mut go = Command::new("go");
        // With the Go that is there: another would have to be fetched.
        go.env("GOTOOLCHAIN", "local").current_dir(&folder);
        must(go.args(["build", "-o"]).arg(&program).arg("."));
    });
    program
}

/// Calls `make` unless `folder` was made from `wanted`, while no other process does the same.
fn install(folder: &Path, wanted: &[u8], make: impl FnOnce()) {
    let name = folder.file_name().expect("a name").to_string_lossy();
    fs::create_dir_all(TOOLS).expect("a folder for tools");
    // Several folders are called `node_modules`: that they wait for each other does no harm.
    let lock = File::create(Path::new(TOOLS).join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let stamp = folder.join(".herald-made-from");
    if fs::read(&stamp).is_ok_and(|made_from| made_from == wanted) {
        return;
    }
    make();
    // Last, so that what was broken off is made again.
    fs::write(&stamp, wanted).expect("a stamp");
}

/// Runs a command of the installation to its end.
fn must(command: &mut Command) {
    eprintln!("tests run {command:?}");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?} cannot be run: {error}"),
    };
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
