// SPDX-License-Identifier: GPL-2.0

//! What the engine asks of its policy, its port and the driver's timer, call by call.

use flush_model::{
    engine::{
        Dead,
        Ended,
        Engine,
        Failure,
        NotSent,
        Port,
        Responses,
        Timer::{
            self,
            *, //
        },
        Used,
        RESPONSE_LEN,
        UNANSWERED, //
    },
    gather::Policy,
    List, //
};

/// How long the policy has flushes held back, except at time 0.
const HOLD: u64 = 100;

/// After how long without an answer the engine wakes.
const CHECK: u64 = 10;

const DONE: Used = Used {
    len: RESPONSE_LEN,
    value: 0,
};

const ERROR: Used = Used {
    len: RESPONSE_LEN,
    value: 1,
};

#[derive(Debug, PartialEq)]
enum Call {
    Sent(Option<u64>),
    Answered(u64, usize, usize),
    Present(usize),
    Gathered(u64, usize),
    Forget,
}
use Call::*;

/// A policy that records its calls.
#[derive(Default)]
struct Spy(Vec<Call>);

impl Policy for Spy {
    fn sent(&mut self, now: Option<u64>) {
        self.0.push(Sent(now));
    }
    fn answered(&mut self, now: u64, answered: usize, waiting: usize) -> u64 {
        self.0.push(Answered(now, answered, waiting));
        HOLD * now.min(1)
    }
    fn present(&mut self, callers: usize, _: impl FnOnce() -> u64) {
        self.0.push(Present(callers));
    }
    fn gathered(&mut self, now: u64, callers: usize) {
        self.0.push(Gathered(now, callers));
    }
    fn forget(&mut self) {
        self.0.push(Forget);
    }
}

/// A port whose results the test sets, and which records what it was asked.
#[derive(Default)]
struct Desk {
    now: u64,
    times_read: usize,
    used: Option<Used>,
    is_dead: bool,
    has_surplus: bool,
    not_sent: Option<NotSent>,
    coarse: bool,
    checks: bool,
    patience: Option<u64>,
    sent: Vec<Vec<u8>>,
    gathered: Vec<(usize, usize)>,
    unanswered: Vec<u64>,
    ended: Vec<(Vec<u8>, Ended)>,
    broke: Vec<&'static str>,
    given_up: usize,
}

impl Port<List> for Desk {
    fn add(&mut self, batch: &List) -> Result<bool, NotSent> {
        match self.not_sent {
            Some(why) => Err(why),
            None => {
                self.sent.push(batch.0.clone());
                Ok(true)
            }
        }
    }
    fn take(&mut self) -> Result<Option<Used>, Dead> {
        if self.is_dead {
            return Err(Dead);
        }
        Ok(self.used.take())
    }
    fn rearm(&mut self) -> bool {
        self.has_surplus
    }
    fn give_up_request(&mut self) {
        self.given_up += 1;
    }
    fn now(&mut self) -> u64 {
        self.times_read += 1;
        self.now
    }
    fn is_timer_precise(&self) -> bool {
        !self.coarse
    }
    fn check_after(&self) -> Option<u64> {
        self.checks.then_some(CHECK)
    }
    fn unanswered(&mut self, waited: u64) -> Option<u64> {
        self.unanswered.push(waited);
        self.patience
    }
    fn gathered(&mut self, callers: usize, expected: usize) {
        self.gathered.push((callers, expected));
    }
    fn end(&mut self, batch: List, how: Ended) {
        self.ended.push((batch.0, how));
    }
    fn broke(&mut self, why: &'static str) {
        self.broke.push(why);
    }
}

/// An engine, and what is around it.
struct Scene {
    engine: Engine<List, Spy>,
    desk: Desk,
    seen: usize,
}

impl Scene {
    /// An engine that has a queue.
    fn new(gathers: bool, desk: Desk) -> Self {
        let mut scene = Self {
            engine: Engine::new(),
            desk,
            seen: 0,
        };
        scene.engine.set_gathering(gathers);
        assert_eq!(scene.engine.gathers(), gathers);
        scene.start();
        scene.calls();
        scene
    }

    /// The same, gathering for three callers, the last of them just answered, until 1100.
    fn gathering() -> Self {
        let mut scene = Self::new(true, Desk::default());
        scene.at(900).arrive(&[1]).arrive(&[2, 3]);
        scene.answer(DONE).arrive(&[4]);
        scene.at(1000).answer(DONE);
        assert_eq!(scene.desk.sent, [vec![1], vec![2, 3, 4]]);
        scene.calls();
        scene.desk.gathered.clear();
        assert_eq!(scene.engine.take_timer(), None);
        scene
    }

    fn start(&mut self) {
        self.engine.start(Responses::Direct, &mut self.desk);
    }

    fn at(&mut self, now: u64) -> &mut Self {
        self.desk.now = now;
        self
    }

    fn arrive(&mut self, callers: &[u8]) -> &mut Self {
        for &caller in callers {
            self.engine.arrive(caller).unwrap();
        }
        self.engine.pump(&mut self.desk);
        self
    }

    fn answer(&mut self, used: Used) -> &mut Self {
        self.desk.used = Some(used);
        self.engine.drain(&mut self.desk);
        self
    }

    fn wake(&mut self, now: u64) -> Option<Timer> {
        self.desk.now = now;
        self.engine.wake(&mut self.desk);
        self.engine.take_timer()
    }

    /// What the policy was asked since the last call.
    fn calls(&mut self) -> &[Call] {
        let new = &self.engine.policy().0[self.seen..];
        self.seen += new.len();
        new
    }
}

#[test]
fn the_callers_come_back_in_time() {
    let mut scene = Scene::new(true, Desk::default());
    scene.at(10).arrive(&[1]);
    assert_eq!(scene.calls(), [Present(1), Sent(None)]);
    scene.arrive(&[2, 3]);
    assert_eq!(scene.calls(), [Present(3)]);
    assert_eq!(scene.engine.take_timer(), None);

    let before = scene.desk.times_read;
    scene.at(50).answer(DONE);
    assert_eq!(scene.desk.times_read, before + 1);
    assert_eq!(scene.calls(), [Answered(50, 1, 2), Present(2)]);
    assert_eq!(scene.engine.take_timer(), Some(Start(150)));
    assert_eq!(scene.engine.take_timer(), None);
    // A timer that was started anew has expired before.
    assert_eq!(scene.wake(149), Some(Start(150)));
    assert_eq!(scene.desk.sent.len(), 1);

    scene.arrive(&[4]);
    assert_eq!(
        scene.calls(),
        [Present(3), Gathered(149, 3), Sent(Some(149))]
    );
    assert_eq!(scene.desk.gathered, [(3, 3)]);
    assert_eq!(scene.desk.sent, [vec![1], vec![2, 3, 4]]);
    assert_eq!(scene.engine.take_timer(), Some(Stop));
}

#[test]
fn they_come_too_late() {
    let mut scene = Scene::gathering();
    scene.at(1020).arrive(&[5]);
    assert_eq!(scene.calls(), [Present(1)]);
    assert_eq!(scene.engine.take_timer(), Some(Start(1100)));
    assert_eq!(scene.wake(1100), None);
    assert_eq!(scene.calls()[..2], [Gathered(1100, 1), Present(1)]);
    assert_eq!(scene.desk.gathered, [(1, 3)]);
    assert_eq!(scene.desk.sent.last(), Some(&vec![5]));
    // There were three before, so this flush was timed; there is one now.
    assert_eq!(scene.engine.policy().0.last(), Some(&Sent(Some(1100))));
    scene.calls();
    scene.answer(DONE).arrive(&[6]);
    assert_eq!(scene.calls(), [Present(0), Present(1), Sent(None)]);
}

#[test]
fn only_the_first_reads_the_clock() {
    let mut scene = Scene::gathering();
    let before = scene.desk.times_read;
    scene.at(1020).arrive(&[5]);
    assert_eq!(scene.desk.times_read, before + 1);
    // The timer ends the gathering, also if it is late.
    scene.at(1150).arrive(&[6]);
    assert_eq!(scene.desk.times_read, before + 1);
    assert_eq!(scene.desk.gathered, []);
    assert_eq!(scene.wake(1160), None);
    assert_eq!(scene.desk.gathered, [(2, 3)]);
    assert_eq!(scene.desk.sent.last(), Some(&vec![5, 6]));
}

#[test]
fn the_first_comes_too_late() {
    let mut scene = Scene::gathering();
    scene.at(1100).arrive(&[5]);
    assert_eq!(scene.calls(), [Present(1), Sent(Some(1100))]);
    assert_eq!(
        (scene.desk.gathered.len(), scene.engine.take_timer()),
        (0, None)
    );
}

#[test]
fn gathering_ends_at_once() {
    for end in [
        Scene::quiesce,
        Scene::switch,
        Scene::close,
        Scene::reset,
        Scene::fail,
    ] {
        let mut scene = Scene::gathering();
        scene.at(1020).arrive(&[5]);
        assert_eq!(scene.engine.take_timer(), Some(Start(1100)));
        end(&mut scene);
        assert_eq!(scene.engine.take_timer(), Some(Stop));
        assert_eq!(scene.wake(1100), None);
    }
}

impl Scene {
    fn quiesce(&mut self) {
        self.engine.quiesce();
    }
    fn switch(&mut self) {
        self.engine.set_gathering(false);
        assert!(!self.engine.gathers());
        assert_eq!(self.calls(), [Present(1), Forget]);
        self.engine.pump(&mut self.desk);
        assert_eq!(self.calls(), [Sent(None)]);
        assert_eq!(self.desk.sent.last(), Some(&vec![5]));
    }
    fn close(&mut self) {
        self.engine.close();
        assert!(self.engine.is_ending());
        self.engine.pump(&mut self.desk);
        assert_eq!(self.desk.sent.last(), Some(&vec![5]));
    }
    fn reset(&mut self) {
        self.engine.reset(None, &mut self.desk);
    }
    fn fail(&mut self) {
        self.engine.fail("why", &mut self.desk);
        assert_eq!(self.desk.broke, ["why"]);
        assert_eq!(self.desk.ended.last(), Some(&(vec![5], Ended::Broken)));
        self.engine.fail("again", &mut self.desk);
        assert_eq!(self.desk.broke, ["why"]);
    }
}

#[test]
fn nothing_is_gathered() {
    // After an error, with a timer that waits for ticks, in a removal, and if that is switched off.
    for case in 0..4 {
        let mut scene = Scene::new(case != 3, Desk::default());
        scene.desk.coarse = case == 1;
        scene.at(10).arrive(&[1]).arrive(&[2, 3]);
        if case == 2 {
            scene.engine.close();
        }
        scene.answer(if case == 0 { ERROR } else { DONE });
        assert_eq!(scene.desk.sent, [vec![1], vec![2, 3]]);
        assert!(!scene
            .calls()
            .iter()
            .any(|call| matches!(call, Answered(..))));
    }
    // If the policy wants none.
    let mut scene = Scene::new(true, Desk::default());
    scene.arrive(&[1]).arrive(&[2, 3]).answer(DONE);
    assert_eq!(scene.desk.sent, [vec![1], vec![2, 3]]);
    // While the engine pauses.
    let mut scene = Scene::new(true, Desk::default());
    scene.at(10).arrive(&[1]).arrive(&[2, 3]);
    scene.engine.quiesce();
    scene.answer(DONE);
    scene.engine.resume();
    scene.arrive(&[]);
    assert_eq!(scene.desk.sent, [vec![1], vec![2, 3]]);
}

#[test]
fn a_flush_that_cannot_be_sent_is_tried_again() {
    let desk = || Desk {
        not_sent: Some(NotSent::Again(500)),
        ..Desk::default()
    };
    let mut scene = Scene::new(false, desk());
    scene.arrive(&[1]);
    assert_eq!(scene.engine.take_timer(), Some(Start(500)));
    assert_eq!(scene.wake(499), Some(Start(500)));
    scene.desk.not_sent = Some(NotSent::Again(600));
    assert_eq!(scene.wake(500), Some(Start(600)));
    scene.desk.not_sent = None;
    assert_eq!(scene.wake(600), None);
    assert_eq!(scene.desk.sent, [[1]]);
    assert!(scene.engine.take_notify() && !scene.engine.take_notify());

    // Another caller has it sent before.
    let mut scene = Scene::new(false, desk());
    scene.arrive(&[1]);
    assert_eq!(scene.engine.take_timer(), Some(Start(500)));
    scene.desk.not_sent = None;
    scene.arrive(&[2]);
    assert_eq!(scene.engine.take_timer(), Some(Stop));

    // There is a surplus answer, or the engine pauses or breaks.
    for case in 0..3 {
        let mut scene = Scene::new(false, desk());
        scene.arrive(&[1]);
        assert_eq!(scene.engine.take_timer(), Some(Start(500)));
        scene.desk.has_surplus = true;
        match case {
            0 => (),
            1 => scene.quiesce(),
            _ => scene.engine.fail("why", &mut scene.desk),
        }
        assert_eq!(scene.engine.take_timer(), (case != 0).then_some(Stop));
        assert_eq!(scene.wake(500), None);
        assert_eq!(scene.engine.is_out_of_step(), case == 0);
    }
}

#[test]
fn a_dead_queue_breaks_the_engine() {
    let mut scene = Scene::new(false, Desk::default());
    scene.desk.not_sent = Some(NotSent::Dead);
    scene.arrive(&[1]);
    assert_eq!(scene.desk.broke, ["no flush can be sent"]);

    let mut scene = Scene::new(false, Desk::default());
    scene.arrive(&[1]);
    scene.desk.is_dead = true;
    scene.engine.drain(&mut scene.desk);
    assert_eq!(scene.desk.broke, ["the queue is broken"]);
    assert_eq!(scene.desk.ended, [(vec![1], Ended::Broken)]);
    assert!(!scene.engine.recover(&mut scene.desk));
    assert!(scene.engine.is_quiet() && !scene.engine.is_idle());
    scene.engine.completed(1);
    assert!(scene.engine.is_idle());
}

#[test]
fn a_host_that_polls_is_not_notified() {
    let mut scene = Scene::new(false, Desk::default());
    scene.arrive(&[1]).answer(DONE);
    assert!(!scene.engine.take_notify());
    scene.arrive(&[2]);
    scene.engine.reset(None, &mut scene.desk);
    assert!(!scene.engine.take_notify());
}

#[test]
fn an_unread_answer_counts_at_a_reset() {
    for (used, how) in [
        (DONE, Ended::Done),
        (ERROR, Ended::Failed(Failure::Status(1))),
    ] {
        let mut scene = Scene::new(false, Desk::default());
        scene.arrive(&[1]).arrive(&[2]);
        scene.engine.reset(Some(used), &mut scene.desk);
        assert_eq!(scene.desk.ended, [(vec![1], how)]);
        assert_eq!((scene.desk.given_up, scene.engine.has_lost()), (0, false));
    }
    let mut scene = Scene::new(false, Desk::default());
    scene.arrive(&[1]).arrive(&[2]);
    scene.engine.reset(None, &mut scene.desk);
    assert_eq!((scene.desk.given_up, scene.engine.has_lost()), (1, true));
    // The lost flush's callers are the first.
    scene.start();
    assert_eq!(scene.desk.sent, [vec![1], vec![1, 2]]);
}

#[test]
fn an_answer_is_waited_for_from_its_flush_on() {
    let mut scene = Scene::new(false, Desk::default());
    scene.desk.checks = true;
    scene.at(100).arrive(&[1]);
    assert_eq!(scene.engine.take_timer(), Some(Start(110)));
    assert_eq!(scene.wake(109), Some(Start(110)));
    assert_eq!(scene.wake(110), Some(Start(120)));
    assert_eq!(scene.wake(123), Some(Start(133)));
    assert_eq!(scene.desk.unanswered, [0, 13]);
    // The timer goes on for the next flush.
    scene.at(125).answer(DONE).arrive(&[2]);
    assert_eq!(scene.engine.take_timer(), None);
    assert_eq!(scene.wake(133), Some(Start(143)));
    assert_eq!(scene.desk.unanswered, [0, 13, 0]);
    // It ends when there is none.
    scene.answer(DONE);
    assert_eq!(scene.wake(143), None);
    assert_eq!(scene.desk.unanswered.len(), 3);
    scene.at(200).arrive(&[3]);
    assert_eq!(scene.engine.take_timer(), Some(Start(210)));
}

#[test]
fn patience_is_doubled_six_times() {
    let mut scene = Scene::new(false, Desk::default());
    (scene.desk.checks, scene.desk.patience) = (true, Some(CHECK));
    scene.arrive(&[1]);
    for checks in [1, 2, 4, 8, 16, 32, 64, 64] {
        let first = scene.desk.unanswered.len();
        for _ in 0..100 {
            if !scene.engine.is_overdue() {
                scene.wake(scene.desk.now + CHECK);
            }
        }
        // The first one begins the wait.
        assert_eq!(scene.desk.unanswered.len() - first, checks + 1);
        assert!(scene.engine.recover(&mut scene.desk));
        scene.engine.reset(None, &mut scene.desk);
        assert!(!scene.engine.is_overdue());
        scene.start();
    }
    // No device is recovered that is being suspended.
    scene.engine.quiesce();
    for _ in 0..100 {
        scene.wake(scene.desk.now + CHECK);
    }
    assert!(!scene.engine.is_overdue());
}

#[test]
fn callers_wait_when_the_machine_goes_down() {
    let mut scene = Scene::new(false, Desk::default());
    assert!(!scene.engine.is_ending());
    scene.engine.shut_down();
    scene.arrive(&[1]);
    scene.engine.resume();
    scene.arrive(&[2]);
    assert!(scene.engine.is_ending() && scene.engine.takes_callers());
    assert!(scene.desk.sent.is_empty() && scene.desk.ended.is_empty());
}

#[test]
fn patience_begins_anew_with_an_answer() {
    let late = Used {
        len: RESPONSE_LEN,
        value: UNANSWERED,
    };
    for used in [DONE, late] {
        let mut scene = Scene::new(false, Desk::default());
        (scene.desk.checks, scene.desk.patience) = (true, Some(CHECK));
        scene.arrive(&[1]);
        scene.wake(10);
        scene.wake(20);
        assert!(scene.engine.is_overdue() && scene.engine.recover(&mut scene.desk));
        scene.engine.reset(None, &mut scene.desk);
        scene.start();
        for now in [30, 40, 50] {
            scene.wake(now);
        }
        assert!(scene.engine.is_overdue() && scene.engine.expects_answer());
        scene.answer(used);
        assert!(!scene.engine.is_overdue() && !scene.engine.expects_answer());
        if used == DONE {
            scene.arrive(&[2]);
        }
        for now in [60, 70] {
            scene.wake(now);
        }
        assert_eq!(scene.desk.unanswered, [0, 10, 0, 10, 20, 0, 10]);
        // Patience is doubled only as long as there is no answer.
        assert_eq!(scene.engine.is_overdue(), used == DONE);
    }
}

#[test]
fn nothing_is_sent_while_a_device_is_recovered() {
    let mut scene = Scene::new(false, Desk::default());
    assert!(scene.engine.recover(&mut scene.desk));
    scene.arrive(&[1]);
    assert!(scene.desk.sent.is_empty());
}

#[test]
fn the_driver_can_ask() {
    let mut scene = Scene::new(false, Desk::default());
    assert_eq!(scene.engine.responses(), Responses::Direct);
    assert!(!scene.engine.is_read_only() && scene.engine.takes_callers());
    scene.engine.set_read_only(true);
    assert!(scene.engine.is_read_only() && !scene.engine.takes_callers());
    let mut engine = Engine::<List, Spy>::new();
    engine.start(Responses::Mapped, &mut scene.desk);
    assert_eq!(engine.responses(), Responses::Mapped);
    engine.break_down(&mut scene.desk);
    assert!(!engine.takes_callers() && scene.desk.broke.is_empty());
}
