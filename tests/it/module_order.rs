//! The modules of `src` use each other in one direction: `lib.rs` lists the folders so that each uses only those before
//! it, and the files and folders of a folder use each other in no circle. Tests may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::support::source::{self, Module, declared, is_test};

/// The modules of `src`, with what each of them names.
#[derive(Default)]
struct Modules {
    /// The paths of other modules, or of what is in them, from the root.
    used: BTreeMap<Module, BTreeSet<Module>>,
    /// Where a name comes from that a module passes on.
    passed_on: BTreeMap<Module, BTreeMap<String, Module>>,
    /// Those of `lib.rs`, in their order.
    listed: Vec<String>,
}

/// What one file names, outside of tests.
#[derive(Default)]
struct Names {
    used: Vec<Module>,
    passed_on: Vec<Module>,
}

fn leaves(tree: &syn::UseTree, mut before: Module, into: &mut Vec<Module>) {
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves(&path.tree, before, into);
        }
        syn::UseTree::Name(name) => {
            before.push(name.ident.to_string());
            into.push(before);
        }
        syn::UseTree::Rename(name) => {
            before.push(name.ident.to_string());
            into.push(before);
        }
        syn::UseTree::Glob(_) => into.push(before),
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, before.clone(), into);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_test(&item.attrs) {
            return;
        }
        let mut all = Vec::new();
        leaves(&item.tree, Vec::new(), &mut all);
        for path in all {
            if path.first().is_some_and(|first| first == "self") {
                self.passed_on.push(path);
            } else {
                self.used.push(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.used
            .push(segments.map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

impl Modules {
    fn read() -> Self {
        let mut modules = Self::default();
        for (module, file) in source::files() {
            if module.is_empty() {
                modules.listed = declared(&file);
            }
            modules.add(module, &file);
        }
        modules
    }

    fn add(&mut self, module: Module, file: &syn::File) {
        let mut names = Names::default();
        names.visit_file(file);
        let used = names
            .used
            .iter()
            .filter_map(|path| from_root(path, &module));
        let used = used.collect();
        let passed_on = names.passed_on.iter().filter_map(|path| {
            let name = path.last()?.clone();
            let inner = path.get(1..path.len() - 1)?;
            Some((name, [module.as_slice(), inner].concat()))
        });
        let passed_on = passed_on.collect();
        self.passed_on.insert(module.clone(), passed_on);
        self.used.insert(module, used);
    }

    /// The module that `path` leads to, through what others pass on.
    fn resolve(&self, path: &[String]) -> Module {
        let mut module = Module::new();
        for name in path {
            let inner = [module.as_slice(), std::slice::from_ref(name)].concat();
            if self.used.contains_key(&inner) {
                module = inner;
                continue;
            }
            return match self
                .passed_on
                .get(&module)
                .and_then(|names| names.get(name))
            {
                Some(from) if self.used.contains_key(from) => from.clone(),
                _ => module,
            };
        }
        module
    }

    /// The modules that each uses, apart from those within it and those that it is in.
    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let arrows = self.used.iter().map(|(module, used)| {
            let others = used.iter().map(|path| self.resolve(path));
            let others =
                others.filter(|other| !other.starts_with(module) && !module.starts_with(other));
            (module, others.collect())
        });
        arrows.collect()
    }
}

/// A path that begins with `crate` or `super`, as the module has it, from the root.
fn from_root(path: &[String], module: &[String]) -> Option<Module> {
    match path.first()?.as_str() {
        "crate" => Some(path.get(1..)?.to_vec()),
        "super" => {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let base = module.get(..module.len().checked_sub(ups)?)?;
            Some([base, path.get(ups..)?].concat())
        }
        _ => None,
    }
}

#[test]
fn a_folder_uses_only_those_that_lib_rs_lists_before_it() {
    let modules = Modules::read();
    let place = |name: &str| modules.listed.iter().position(|listed| listed == name);
    let mut upwards = Vec::new();
    for (module, used) in modules.arrows() {
        let Some(folder) = module.first() else {
            continue;
        };
        for other in used {
            if other
                .first()
                .is_some_and(|other| place(other) > place(folder))
            {
                upwards.push(format!("{} uses {}", module.join("::"), other.join("::")));
            }
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
    assert!(
        modules.used.len() > 100,
        "only {} modules",
        modules.used.len()
    );
}

#[test]
fn the_files_and_folders_of_a_folder_use_each_other_in_no_circle() {
    let modules = Modules::read();
    let arrows = modules.arrows();
    let folders: BTreeSet<&[String]> = arrows
        .keys()
        .filter_map(|module| Some(module.split_last()?.1))
        .collect();
    let mut circles = Vec::new();
    for folder in folders {
        // A folder within it counts as one.
        let unit = |module: &Module| module.get(..=folder.len()).map(<[String]>::to_vec);
        let mut left: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, used) in &arrows {
            let inner = unit(module).filter(|_| module.starts_with(folder));
            let Some(from) = inner else { continue };
            let others = used.iter().filter(|other| other.starts_with(folder));
            let others = others.filter_map(unit).filter(|other| *other != from);
            left.entry(from.clone()).or_default().extend(others);
        }
        circles.extend(in_circles(left).iter().map(|module| module.join("::")));
    }
    assert!(circles.is_empty(), "in circles: {circles:#?}");
}

/// Those that are in a circle, or between two.
fn in_circles(mut left: BTreeMap<Module, BTreeSet<Module>>) -> Vec<Module> {
    loop {
        let names: BTreeSet<Module> = left.keys().cloned().collect();
        let used: BTreeSet<Module> = left.values().flatten().cloned().collect();
        let before = left.len();
        // Who uses nobody that is left is in no circle, nor is who is used by nobody that is left.
        left.retain(|module, others| {
            used.contains(module) && others.iter().any(|other| names.contains(other))
        });
        if left.len() == before {
            return left.into_keys().collect();
        }
    }
}
