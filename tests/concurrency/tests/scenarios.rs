// SPDX-License-Identifier: GPL-2.0

//! The driver keeps to its rules in each execution, and each mutant is found in one.

use flush_concurrency::{
    real::scenario,
    MUTANTS, //
};
use std::{
    env,
    process::Command, //
};

/// How many preemptions there are; one more with `LONG=1`.
fn preemptions() -> usize {
    2 + usize::from(env::var("LONG").is_ok_and(|long| long == "1"))
}

#[test]
fn sleepers_are_woken() {
    scenario::sleepers(preemptions());
}

#[test]
fn failures_reach_their_callers() {
    scenario::failure(preemptions());
}

#[test]
fn callbacks_may_be_spurious() {
    scenario::spurious(preemptions());
}

#[test]
fn callers_wait_for_a_stopped_device() {
    scenario::suspend(preemptions());
}

#[test]
fn bios_end_before_a_removal() {
    scenario::removal(preemptions());
}

#[test]
fn bios_and_sleepers_share_flushes() {
    scenario::mixed(preemptions());
}

#[test]
fn bios_of_a_lost_device_end() {
    scenario::surprise(preemptions());
}

/// Runs the mutant that the environment names: it may end in any way.
#[test]
#[ignore = "for mutants_are_found"]
fn mutant() {
    let name = env::var("MUTANT").unwrap();
    let (_, _, _, run) = MUTANTS.iter().find(|mutant| mutant.0 == name).unwrap();

    run(2);
}

#[test]
fn mutants_are_found() {
    let mut missed = vec![];

    for (name, scenario, why, _) in MUTANTS {
        let done = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "mutant"])
            .env("MUTANT", name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stderr);

        println!(
            "mutant: {name}, {scenario}: {}",
            text.lines().find(|line| line.contains(why)).unwrap_or("?")
        );
        if done.status.success() || !text.contains(why) {
            missed.push(format!("{name}: {}, no \"{why}\" in:\n{text}", done.status));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
