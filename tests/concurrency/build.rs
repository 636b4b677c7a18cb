// SPDX-License-Identifier: GPL-2.0

//! Copies the driver's files, with the stand-ins of `src/shim.rs` in place of the kernel, into a
//! module for the driver as it is and one for each mutant.

use std::{
    env,
    fmt::Write,
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

/// The files of the kernel crate.
const KERNEL: &[&str] = &[
    "types/chain",
    "types/brand",
    "sync/wait_list",
    "block/bio/list",
];

/// The driver's files.
const DRIVER: &[&str] = &[
    "engine",
    "gather",
    "callers",
    "flush",
    "flush/faults",
    "flush/port",
    "flush/shared",
];

/// A change of one file: all text from the first string to the second, which stays, becomes the
/// third; without a second string, the first one alone.
type Change = (&'static str, &'static str, &'static str, &'static str);

/// What the stand-ins cannot be.
const CHANGES: &[Change] = &[
    // Files in debugfs.
    (
        "flush",
        "    /// Makes the files of the device in debugfs.",
        "    fn shared(&self)",
        "",
    ),
    (
        "faults",
        "    /// Makes the files that switch",
        "    /// Returns whether a caller",
        "",
    ),
    // loom follows accesses by types of its own.
    (
        "wait_list",
        "    cell::{\n        Cell,\n        UnsafeCell, //\n    },\n",
        "",
        "",
    ),
    (
        "wait_list",
        "\nuse pin_init::stack_pin_init;",
        "",
        "\nuse crate::{stack_pin_init, Cell, UnsafeCell};",
    ),
];

/// Drivers with a fault, the scenario that finds it, and what is reported there.
const MUTANTS: &[(&str, &str, &str, &[Change])] = &[
    // A caller is not woken.
    (
        "no_wakeup",
        "sleepers",
        "deadlock",
        &[("wait_list", "unsafe { bindings::complete(done) };", "", "let _ = done;")],
    ),
    // The callers are woken before they have a result.
    (
        "early_wakeup",
        "sleepers",
        "Causality violation",
        &[
            (
                "wait_list",
                "*(*node).result.get() = result;",
                "",
                "bindings::complete((*node).done.get()); *(*node).result.get() = result;",
            ),
            ("wait_list", "unsafe { bindings::complete(done) };", "", "let _ = done;"),
        ],
    ),
    // A caller that has joined does not sleep.
    (
        "no_sleep",
        "sleepers",
        "Causality violation",
        &[("wait_list", "if joined.get() {", "", "if !joined.get() {")],
    ),
    // The host is notified before the request is in the ring.
    (
        "early_kick",
        "sleepers",
        "deadlock",
        &[
            ("port", "        let notify = queue.kick_prepare();\n", "", ""),
            (
                "port",
                "        if let Err((err, request)) = queue.add(request) {",
                "",
                "        let notify = queue.kick_prepare();\n        \
                 if let Err((err, request)) = queue.add(request) {",
            ),
        ],
    ),
    // The host is not notified.
    (
        "no_kick",
        "sleepers",
        "deadlock",
        &[("shared", "notifier.is_none_or(Notifier::notify)", "", "notifier.is_none_or(|_| true)")],
    ),
    // A caller joins the batch that is in flight.
    (
        "flush_in_flight",
        "sleepers",
        "acknowledged without a flush",
        &[(
            "engine",
            "        self.waiting.join(caller);\n",
            "",
            "        if self.expects_answer() {\n            self.in_flight.join(caller);\n        \
             } else {\n            self.waiting.join(caller);\n        }\n",
        )],
    ),
    // An error is no result.
    (
        "no_error",
        "failure",
        "acknowledged without a flush",
        &[("port", "self.failed.complete_all(Err(EIO));", "", "self.failed.complete_all(Ok(()));")],
    ),
    // The removal does not wait for the callers.
    (
        "no_wait",
        "removal",
        "a bio has failed",
        &[("flush", "if self.shared().wait_until(Engine::is_idle, || false).is_err() {", "", "if false {")],
    ),
    // The removal does not wait for the work item.
    (
        "no_flush",
        "surprise",
        "a bio was not completed",
        &[("flush", "        self.shared().flush();\n", "", "")],
    ),
    // A task that waits for the state is not woken: by the callback, by the work item.
    (
        "no_notify",
        "suspend",
        "deadlock",
        &[("shared", "        shared.changed.notify_all();\n", "", "")],
    ),
    (
        "no_notify_by_work",
        "removal",
        "deadlock",
        &[("shared", "                this.changed.notify_all();\n", "", "")],
    ),
    // The work item is not queued.
    (
        "no_work",
        "removal",
        "deadlock",
        &[("shared", "        shared.enqueue(&timed.ordered);\n", "", "")],
    ),
];

/// Replaces text that a file has once.
fn change(name: &str, text: &mut String, &(file, from, to, with): &Change) {
    if file != name {
        return;
    }
    assert_eq!(
        text.matches(from).count(),
        1,
        "{name}.rs does not have once: {from}"
    );
    let start = text.find(from).unwrap();
    let end = if to.is_empty() {
        start + from.len()
    } else {
        start
            + text[start..]
                .find(to)
                .unwrap_or_else(|| panic!("{name}.rs lacks: {to}"))
    };
    text.replace_range(start..end, with);
}

/// Copies a file for the module `tree`, with `crate::` and `kernel::` as they are there.
fn copy(out: &Path, tree: &str, path: &Path, root: &str, changes: &[Change]) {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let mut text = fs::read_to_string(path).unwrap_or_else(|err| panic!("{path:?}: {err}"));

    println!("cargo::rerun-if-changed={}", path.display());
    // The file's own tests.
    text.truncate(text.find("#[kunit_tests(").unwrap_or(text.len()));
    for change_of in CHANGES.iter().chain(changes) {
        change(name, &mut text, change_of);
    }
    text = text
        .replace("#[pin_data]\n", "")
        .replace("#[pin]\n", "")
        .replace("crate::", &format!("crate::{tree}::{root}"))
        .replace("use kernel::", &format!("use crate::{tree}::kernel::"));
    fs::write(out.join(tree).join(name).with_extension("rs"), text).unwrap();
}

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap());
    let root = here.join("../..");
    let kernel = root.join("rust/kernel");
    let driver = root.join("drivers/nvdimm/virtio_pmem_rust");
    let mut trees = String::new();
    let mut mutants = String::new();
    let real = [("real", "", "", &[] as &[Change])];

    println!("cargo::rerun-if-changed=build.rs");
    for (tree, scenario, why, changes) in real.iter().chain(MUTANTS).copied() {
        fs::create_dir_all(out.join(tree)).unwrap();
        for file in KERNEL {
            copy(
                &out,
                tree,
                &kernel.join(file).with_extension("rs"),
                "kernel::",
                changes,
            );
        }
        for file in DRIVER {
            copy(
                &out,
                tree,
                &driver.join(file).with_extension("rs"),
                "",
                changes,
            );
        }
        copy(&out, tree, &here.join("src/scenario.rs"), "", changes);
        let file = |name| {
            format!(
                "#[path = {:?}]",
                out.join(tree).join(name).with_extension("rs")
            )
        };
        write!(
            trees,
            "#[allow(dead_code, missing_docs, unused, clippy::all)]
             pub mod {tree} {{
                 pub mod kernel {{
                     pub use crate::shim::*;
                     pub mod types {{
                         pub use crate::shim::types::*;
                         {} mod brand;
                         {} mod chain;
                         pub(crate) use {{brand::Brand, chain::{{Chain, Link}}}};
                     }}
                     pub mod sync {{
                         pub use crate::shim::sync::*;
                         {} pub mod wait_list;
                         pub use wait_list::WaitList;
                     }}
                     pub mod block {{
                         pub mod bio {{
                             pub use crate::shim::bio::*;
                             {} mod list;
                             pub use list::BioList;
                         }}
                     }}
                 }}
                 pub use crate::stubs::*;
                 {} pub mod engine;
                 {} pub mod gather;
                 {} pub mod callers;
                 {} pub mod flush;
                 {} pub mod scenario;
             }}\n",
            file("brand"),
            file("chain"),
            file("wait_list"),
            file("list"),
            file("engine"),
            file("gather"),
            file("callers"),
            file("flush"),
            file("scenario"),
        )
        .unwrap();
        if !scenario.is_empty() {
            writeln!(
                mutants,
                "({tree:?}, {scenario:?}, {why:?}, {tree}::scenario::{scenario}),"
            )
            .unwrap();
        }
    }
    write!(
        trees,
        "/// Each mutant, the scenario that finds it, and what is reported there.
         pub const MUTANTS: &[Mutant] = &[{mutants}];\n"
    )
    .unwrap();
    fs::write(out.join("trees.rs"), trees).unwrap();
}
