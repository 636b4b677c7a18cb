// SPDX-License-Identifier: GPL-2.0

//! What gathering costs and gains: the engine with it and without it, on the same loads.
//!
//! Time is simulated, and each random number has a fixed seed, so the figures are the same
//! everywhere. `cargo test --test regret -- --nocapture` prints them.

use flush_model::engine::{
    Batch,
    Dead,
    Ended,
    Engine,
    Join,
    NotSent,
    Port,
    Responses,
    Timer,
    Used,
    RESPONSE_LEN, //
};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    mem, //
};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

const SEED: u64 = 1;

/// After the end of each run.
const NEVER: u64 = 1 << 60;

/// What the guest's one processor needs for a caller.
const CPU: u64 = 10 * MICROSECOND;

/// Random numbers (splitmix64).
#[derive(Clone)]
struct Random(u64);

impl Random {
    /// Returns a number above 0 and not above 1.
    fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON
    }

    fn exponential(&mut self, mean: u64) -> u64 {
        (-self.part().ln() * mean as f64) as u64
    }
}

/// How long a caller stays away when its flush has ended.
type Think = Box<dyn Fn(&mut Random, Moment) -> u64>;

/// How long the host needs for a flush.
type Service = Box<dyn Fn(&mut Random, u64) -> u64>;

/// What a caller that stays away can take into account.
#[derive(Clone, Copy)]
struct Moment {
    now: u64,
    caller: usize,
    /// How many of its flushes have ended.
    flushes: u64,
    /// How many flushes the engine has held back.
    gathered: u64,
}

struct Load {
    name: String,
    service: Service,
    /// Callers that come back.
    closed: Vec<Think>,
    /// They react to what the engine does.
    reacts: bool,
    /// The mean time between callers that come once.
    open: Option<u64>,
    /// The times at which such callers come.
    times: Vec<u64>,
    end: u64,
}

/// A caller: its number, if it comes back, and when it has arrived.
#[derive(Clone, Copy)]
struct Caller(Option<usize>, u64);

#[derive(Default)]
struct Callers(Vec<Caller>);

impl Batch for Callers {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn append(&mut self, later: &mut Self) {
        self.0.append(&mut later.0);
    }
}

impl Join<Caller> for Callers {
    fn join(&mut self, caller: Caller) {
        self.0.push(caller);
    }
}

/// A queue, a clock, and the callers that have ended.
#[derive(Default)]
struct SimulatedPort {
    now: u64,
    added: bool,
    answered: bool,
    ended: Vec<Caller>,
}

impl Port<Callers> for SimulatedPort {
    fn add(&mut self, _: &Callers) -> Result<bool, NotSent> {
        self.added = true;
        Ok(true)
    }
    fn take(&mut self) -> Result<Option<Used>, Dead> {
        let used = Used {
            len: RESPONSE_LEN,
            value: 0,
        };
        Ok(mem::take(&mut self.answered).then_some(used))
    }
    fn rearm(&mut self) -> bool {
        false
    }
    fn give_up_request(&mut self) {}
    fn now(&mut self) -> u64 {
        self.now
    }
    fn is_timer_precise(&self) -> bool {
        true
    }
    fn check_after(&self) -> Option<u64> {
        None
    }
    fn unanswered(&mut self, _: u64) -> Option<u64> {
        None
    }
    fn gathered(&mut self, _: usize, _: usize) {}
    fn end(&mut self, callers: Callers, how: Ended) {
        assert_eq!(how, Ended::Done);
        self.ended = callers.0;
    }
    fn broke(&mut self, why: &'static str) {
        panic!("{why}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(Option<usize>),
    Answer,
    Wake,
}

/// What a run has shown: times in nanoseconds.
struct Figures {
    callers: usize,
    seconds: f64,
    mean: f64,
    p99: u64,
    flushes: u64,
    gathered: (u64, u64),
    /// When callers have arrived.
    arrivals: Vec<u64>,
    /// How long each of those that come back has stayed away.
    away: Vec<Vec<u64>>,
}

impl Figures {
    fn rate(&self) -> f64 {
        self.callers as f64 / self.seconds
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:6.0} {:6.2} {:6.2} {:5.1}",
            self.rate(),
            self.mean / 1e6,
            self.p99 as f64 / 1e6,
            self.callers as f64 / self.flushes as f64
        )
    }
}

fn run(load: &Load, gathers: bool) -> Figures {
    let mut engine = Engine::<Callers>::new();
    let mut port = SimulatedPort::default();
    let mut events = BinaryHeap::new();
    let mut order = 0;
    let mut at = |events: &mut BinaryHeap<_>, time: u64, event| {
        order += 1;
        events.push(Reverse((time, order, event)));
    };
    let mut thinks: Vec<_> = (0..load.closed.len())
        .map(|caller| (Random(SEED + 2 + caller as u64), 0))
        .collect();
    let mut serves = Random(SEED);
    let mut comes = Random(SEED + 1);
    let mut cpu_free = 0;
    let mut wakeup = None;
    let mut latencies = vec![];
    let mut arrivals = vec![];
    let mut stays = vec![vec![]; load.closed.len()];
    let mut flushes = 0;

    engine.start(Responses::Direct, &mut port);
    engine.set_gathering(gathers);
    for (caller, think) in load.closed.iter().enumerate() {
        let moment = Moment {
            now: 0,
            caller,
            flushes: 0,
            gathered: 0,
        };
        let away = think(&mut thinks[caller].0, moment);
        stays[caller].push(away);
        cpu_free = away.max(cpu_free) + CPU;
        at(&mut events, cpu_free, Event::Arrive(Some(caller)));
    }
    for &time in &load.times {
        at(&mut events, time, Event::Arrive(None));
    }
    if let Some(mean) = load.open {
        at(&mut events, comes.exponential(mean), Event::Arrive(None));
    }

    while let Some(Reverse((now, _, event))) = events.pop() {
        if now > load.end {
            break;
        }
        port.now = now;
        match event {
            Event::Arrive(caller) => {
                arrivals.push(now);
                assert!(engine.arrive(Caller(caller, now)).is_ok());
                engine.pump(&mut port);
                if let (None, Some(mean)) = (caller, load.open) {
                    at(&mut events, now + comes.exponential(mean), event);
                }
            }
            Event::Answer => {
                port.answered = true;
                engine.drain(&mut port);
            }
            Event::Wake if wakeup == Some(now) => {
                wakeup = None;
                engine.wake(&mut port);
            }
            Event::Wake => (),
        }
        engine.take_notify();
        if mem::take(&mut port.added) {
            flushes += 1;
            let time = (load.service)(&mut serves, now);
            at(&mut events, now + time, Event::Answer);
        }
        match engine.take_timer() {
            Some(Timer::Start(time)) => {
                assert!(gathers && time - now <= engine.policy().limit());
                wakeup = Some(time);
                at(&mut events, time, Event::Wake);
            }
            Some(Timer::Stop) => wakeup = None,
            None => (),
        }
        let ended = mem::take(&mut port.ended);
        engine.completed(ended.len());
        for Caller(caller, arrived) in ended {
            latencies.push(now - arrived);
            let Some(caller) = caller else { continue };
            let (random, flushes) = &mut thinks[caller];
            *flushes += 1;
            let moment = Moment {
                now,
                caller,
                flushes: *flushes,
                gathered: engine.policy().gathered,
            };
            let away = load.closed[caller](random, moment);
            stays[caller].push(away);
            cpu_free = (now + away).max(cpu_free) + CPU;
            at(&mut events, cpu_free, Event::Arrive(Some(caller)));
        }
    }
    latencies.sort_unstable();
    Figures {
        callers: latencies.len(),
        seconds: load.end as f64 / 1e9,
        mean: latencies.iter().sum::<u64>() as f64 / latencies.len() as f64,
        p99: latencies[latencies.len() * 99 / 100],
        flushes,
        gathered: (engine.policy().gathered, engine.policy().in_vain),
        arrivals,
        away: stays,
    }
}

/// A service time, with a tenth more or less.
fn steady(mean: u64) -> Service {
    Box::new(move |random, _| (mean as f64 * (0.9 + 0.2 * random.part())) as u64)
}

/// So many callers, each away for a random time.
fn closed(callers: usize, mean: u64) -> Vec<Think> {
    (0..callers)
        .map(|_| -> Think { Box::new(move |random, _| random.exponential(mean)) })
        .collect()
}

/// So many callers, away as `think` says.
fn callers(
    count: usize,
    think: impl Fn(&mut Random, Moment) -> u64 + Copy + 'static,
) -> Vec<Think> {
    (0..count).map(|_| -> Think { Box::new(think) }).collect()
}

fn load(name: impl Into<String>, service: u64, closed: Vec<Think>) -> Load {
    Load {
        name: name.into(),
        service: steady(service),
        closed,
        reacts: false,
        open: None,
        times: vec![],
        end: 2000 * service,
    }
}

/// Those of the simulator that the policy comes from.
fn ordinary() -> Vec<Load> {
    let fast = 50 * MICROSECOND;
    let mut loads = vec![];
    for service in [300, 2300, 10_300].map(|time| time * MICROSECOND) {
        let mut add = |name: &str, closed, open: Option<u64>| {
            let name = format!("{:.1} ms: {name}", service as f64 / 1e6);
            loads.push(Load {
                open,
                ..load(name, service, closed)
            });
        };
        for count in [1, 2, 4, 16, 64] {
            add(&format!("{count} closed"), closed(count, fast), None);
        }
        add("64, think 2 ms", closed(64, 2 * MILLISECOND), None);
        add("64, think 20 ms", closed(64, 20 * MILLISECOND), None);
        let sometimes = |random: &mut Random, _: Moment| {
            let slow = random.part() < 0.02;
            random.exponential(if slow {
                20 * MILLISECOND
            } else {
                50 * MICROSECOND
            })
        };
        add("64, sometimes 20 ms", callers(64, sometimes), None);
        let rests = |random: &mut Random, moment: Moment| {
            let pause = 300 * MILLISECOND;
            let slow = moment.now % (2 * pause) > pause;
            random.exponential(50 * MICROSECOND)
                + u64::from(slow) * (2 * pause - moment.now % (2 * pause))
        };
        add("16 closed, all rest", callers(16, rests), None);
        let mut mixed = closed(8, fast);
        mixed.extend(closed(8, 3 * service));
        add("8 fast, 8 slow", mixed, None);
        add("1 fast and open", closed(1, fast), Some(2 * service));
        add("open, half a flush", vec![], Some(2 * service));
        add("open, 2 a flush", vec![], Some(service / 2));
        add("open, 20 a flush", vec![], Some(service / 20));
    }
    loads
}

/// Callers that mislead the policy.
fn misleading() -> Vec<Load> {
    let fast = 50 * MICROSECOND;
    let service = 2300 * MICROSECOND;
    let mut loads = vec![];

    // Callers come back fast some times, and then stay away.
    for count in [2, 8, 32] {
        for times in [1, 2, 3, 4, 6, 8, 12, 70] {
            let think = move |random: &mut Random, moment: Moment| {
                if moment.flushes % (times + 1) == times {
                    3 * service + random.exponential(fast)
                } else {
                    random.exponential(fast)
                }
            };
            let name = format!("{count}, fast {times} times, then slow");
            loads.push(load(name, service, callers(count, think)));

            // All but one stay away, at the same time.
            let think = move |random: &mut Random, moment: Moment| {
                let period = 2 * (times + 1) * service;
                let slow = moment.now % period > times * service && moment.caller > 0;
                random.exponential(fast) + u64::from(slow) * (period - moment.now % period)
            };
            let name = format!("{count}, in bursts of {times}, but one");
            loads.push(load(name, service, callers(count, think)));
        }
        // As soon as the engine has gathered so often, all but one stay away for a while.
        for times in [1, 2, 3, 5, 10] {
            let think = move |random: &mut Random, moment: Moment| {
                let slow = moment.gathered % times == times - 1 && moment.caller > 0;
                random.exponential(fast) + u64::from(slow) * 3 * service
            };
            let name = format!("{count}, stop after {times} gathered");
            loads.push(Load {
                reacts: true,
                ..load(name, service, callers(count, think))
            });
        }
    }
    loads
}

/// Callers that react to the engine stay away for as long without gathering as with it.
fn reacted(loads: Vec<Load>) -> Vec<Load> {
    let react = |load: Load| {
        let away = if load.reacts {
            run(&load, true).away
        } else {
            return load;
        };
        let think = |away: Vec<u64>| -> Think {
            Box::new(move |_, moment| *away.get(moment.flushes as usize).unwrap_or(&NEVER))
        };
        Load {
            closed: away.into_iter().map(think).collect(),
            ..load
        }
    };
    loads.into_iter().map(react).collect()
}

/// Hosts that mislead the policy.
fn moody() -> Vec<Load> {
    let service = 2300 * MICROSECOND;
    let slow = 10 * MILLISECOND;
    let mut loads = vec![];

    for (kind, think, open) in [
        ("16 closed", 50 * MICROSECOND, None),
        ("16, think 2 ms", 2 * MILLISECOND, None),
        ("2 closed", 50 * MICROSECOND, None),
        ("2, think 2 ms", 2 * MILLISECOND, None),
        ("64 closed", 50 * MICROSECOND, None),
        ("64, think 2 ms", 2 * MILLISECOND, None),
        ("open, 2 a flush", 0, Some(2)),
        ("open, 20 a flush", 0, Some(20)),
    ] {
        let count = kind
            .split([' ', ','])
            .next()
            .and_then(|count| count.parse().ok());
        let mut add = |name: String, service, times: Service| {
            loads.push(Load {
                service: times,
                open: open.map(|count| service / count),
                // Otherwise chance decides how many slow flushes each run has.
                end: 50_000 * MILLISECOND,
                ..load(
                    format!("{kind}, {name}"),
                    service,
                    closed(count.unwrap_or(0), think),
                )
            });
        };

        for flushes in [3, 10, 100] {
            let name = format!("100 times faster or slower each {} ms", 10 * flushes);
            add(
                name,
                slow,
                Box::new(move |random, now| {
                    let is_slow = now / (flushes * slow) % 2 == 0;
                    steady(if is_slow { slow } else { slow / 100 })(random, now)
                }),
            );
        }
        add(
            "any service time".into(),
            service,
            Box::new(move |random, _| random.exponential(service)),
        );
        add(
            "every tenth flush slow".into(),
            service,
            Box::new(move |random, now| {
                let is_slow = random.part() < 0.1;
                steady(if is_slow { 10 * service } else { service / 10 })(random, now)
            }),
        );
    }
    loads
}

/// How gathering compares on a load.
struct Compared {
    name: String,
    off: Figures,
    on: Figures,
}

impl Compared {
    fn new(load: &Load) -> Self {
        let [off, on] = [false, true].map(|gathers| run(load, gathers));
        Self {
            name: load.name.clone(),
            off,
            on,
        }
    }

    /// The mean and the 99th percentile of the latency with gathering, as parts of those without.
    fn parts(&self) -> (f64, f64) {
        (
            self.on.mean / self.off.mean,
            self.on.p99 as f64 / self.off.p99 as f64,
        )
    }

    /// Returns what is worse than it may be.
    fn wrong(&self) -> Vec<String> {
        let (mean, p99) = self.parts();
        [("mean", mean, 1.05), ("99th percentile", p99, 1.25)]
            .iter()
            .filter(|(_, part, most)| part > most)
            .map(|(what, part, _)| format!("{}: {part:.3} times the {what}", self.name))
            .collect()
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, p99) = self.parts();
        write!(
            f,
            "{:50} {} {} {mean:6.3} {p99:6.3} {:5} {:5}",
            self.name, self.off, self.on, self.on.gathered.0, self.on.gathered.1
        )
    }
}

/// The head of the table.
fn head() -> String {
    let figures = format!("{:>6} {:>6} {:>6} {:>5}", "call/s", "ms", "p99", "batch");
    format!(
        "{:50} {figures} {figures} {:>6} {:>6} {:>5} {:>5}",
        "load (without gathering, with it, parts, gathered)", "mean", "p99", "gath.", "vain"
    )
}

/// Prints a line; `make model` shows it.
fn show(line: impl fmt::Display) {
    println!("regret: {line}");
}

/// Checks all of `loads`, and returns how they compare.
fn check(loads: Vec<Load>) -> Vec<Compared> {
    let all: Vec<_> = loads.iter().map(Compared::new).collect();
    let wrong: Vec<_> = all.iter().flat_map(Compared::wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    all
}

/// Checks loads, and shows the worst figures; all of them are in the log.
fn check_worst(name: &str, loads: Vec<Load>) {
    let all = check(loads);
    all.iter().for_each(|compared| println!("{compared}"));
    let worst = |part: fn(&Compared) -> f64| all.iter().map(part).fold(0.0, f64::max);
    show(format!(
        "{name}, {} loads: at most {:.3} times the mean, {:.3} times the 99th percentile",
        all.len(),
        worst(|compared| compared.parts().0),
        worst(|compared| compared.parts().1),
    ));
}

#[test]
fn ordinary_loads_gain() {
    let all = check(ordinary());
    show(head());
    all.iter().for_each(show);
    // What the simulation of the policies promised: callers a second, and their mean latency.
    for (name, rate, mean) in [
        ("10.3 ms: 64 closed", 5720.0, 10.7),
        ("2.3 ms: 64 closed", 20713.0, 2.64),
        ("2.3 ms: 16 closed", 6179.0, 2.40),
        ("2.3 ms: 2 closed", 713.0, 2.73),
        ("10.3 ms: 64, think 20 ms", 718.0, 18.0),
        ("2.3 ms: open, 20 a flush", 8695.0, 3.50),
        // And what follows from these if all callers pause half of the time.
        ("10.3 ms: 16 closed, all rest", 750.0, 10.7),
    ] {
        let on = &all
            .iter()
            .find(|compared| compared.name == name)
            .unwrap()
            .on;
        assert!(on.rate() > 0.9 * rate, "{name}: {on}");
        assert!(on.mean / 1e6 < 1.1 * mean, "{name}: {on}");
    }
}

#[test]
fn misleading_callers_lose_little() {
    check_worst("misleading callers", reacted(misleading()));
}

#[test]
fn misleading_hosts_cost_little() {
    check_worst("hosts that change", moody());
}

/// The arrivals without gathering, as if each caller came once and so gained nothing later.
///
/// Not for hosts that change: there a caller that comes back does so at a time that depends on how
/// long that flush took without gathering.
#[test]
fn the_same_arrivals_lose_little() {
    let as_open = |load: Load| Load {
        times: run(&load, false).arrivals,
        closed: vec![],
        open: None,
        ..load
    };
    let loads = ordinary().into_iter().chain(reacted(misleading()));
    check_worst("the same arrivals", loads.map(as_open).collect());
}
