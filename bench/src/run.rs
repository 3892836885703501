//! A whole run: for each scenario and round each target in turn, each with a nats-server of its own, so that what the
//! machine does meanwhile meets all of them alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::hardship::{Cable, Quarter};
use crate::marker::Markers;
use crate::measure::{Clock, Phase, Processes, phase};
use crate::nats::Nats;
use crate::process::Memory;
use crate::publish::{Pace, Planned, Publisher, plan};
use crate::report::Report;
use crate::round::Round;
use crate::scenario::{Beside, Connect, Group, Hardship, Scenario};
use crate::slot::{Manner, SocketPlan};
use crate::sockets::Sockets;
use crate::stored::{self, Stored, Stream};
use crate::target::{Name, Setting, Started, Target};
use crate::tokens::Signer;
use crate::{Error, say};

/// Sockets that are not measured while they connect do so at this rate.
const CALM_PER_S: f64 = 5000.0;
/// All sockets are to be open within this time.
const CONNECTING: Duration = Duration::from_secs(90);
/// After the open, until it is quiet.
const SETTLE: Duration = Duration::from_millis(500);
/// Events at first that are not measured, at the pace of the scenario.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub targets: Vec<Name>,
    pub scenarios: Vec<Scenario>,
    pub rounds: u32,
    pub peers: PathBuf,
    pub herald: PathBuf,
    pub nats_server: PathBuf,
    pub event_bytes: usize,
    /// Instead of a scenario's own.
    pub time: Option<Duration>,
}

/// Runs all of `plan`; what was measured until then also where `stop` is set.
///
/// # Errors
/// Where nothing can be measured at all.
pub fn run(plan: &Plan, handle: &Handle, stop: &Arc<AtomicBool>) -> Result<Report, Error> {
    let mut report = Report::new(plan.rounds);
    let targets = installed(plan, handle, stop, &mut report)?;
    let of = |scenario: &Scenario| {
        let only = scenario.only;
        let is_of = move |target: &&&Name| only.is_none_or(|only| only.contains(&target.folder()));
        targets.iter().copied().filter(move |target| is_of(&target))
    };
    let each: usize = plan.scenarios.iter().map(|row| of(row).count()).sum();
    let (all, mut begun) = (each * plan.rounds as usize, 0);
    for scenario in &plan.scenarios {
        for round in 1..=plan.rounds {
            for target in of(scenario) {
                begun += 1;
                let name = format!("{} {} round {round}", scenario.name, target.label);
                say(&format!("{name}: {begun} of {all}"));
                let bench = Bench::start(plan, target, scenario, handle, stop);
                let measured = bench.and_then(|bench| bench.map_err(Error::Failed)?.measure());
                if stop.load(Ordering::Relaxed) {
                    report.interrupted = true;
                    return Ok(report);
                }
                match measured {
                    Ok(mut measured) => {
                        measured.number = round;
                        say(&format!("{name}: {}", measured.line()));
                        report.add(scenario, &target.label, measured);
                    }
                    Err(error) => {
                        say(&format!("{name} failed: {error}"));
                        report.fail(scenario, &target.label, error.to_string());
                    }
                }
            }
        }
    }
    Ok(report)
}

/// The targets that can be started. It is told first which cannot, and how to get them, since a run is long.
fn installed<'a>(
    plan: &'a Plan,
    handle: &Handle,
    stop: &Arc<AtomicBool>,
    report: &mut Report,
) -> Result<Vec<&'a Name>, Error> {
    let mut installed = Vec::new();
    let Some(first) = plan.scenarios.first() else {
        return Ok(installed);
    };
    for target in &plan.targets {
        let is_asked = |row: &Scenario| row.only.is_none_or(|only| only.contains(&target.folder()));
        if !plan.scenarios.iter().any(is_asked) {
            continue;
        }
        match Bench::start(plan, target, first, handle, stop)? {
            Ok(_) => installed.push(target),
            Err(why) => {
                say(&format!("{} is left out: {why}", target.label));
                report.missing.insert(target.label.clone(), why);
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
    }
    Ok(installed)
}

/// A flag that an interrupt or SIGTERM sets. A second one ends the process at once.
pub fn interrupts(handle: &Handle) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    handle.spawn(async move {
        let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        let Ok(mut terminated) = terminated else {
            return;
        };
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            if flag.swap(true, Ordering::Relaxed) {
                #[allow(
                    clippy::exit,
                    reason = "the user does not want to wait for the ends of others"
                )]
                std::process::exit(130);
            }
            say("interrupted: what was measured so far follows");
        }
    });
    stop
}

/// One measurement of one target, ready to begin.
struct Bench<'a> {
    plan: &'a Plan,
    scenario: &'a Scenario,
    target: Box<Target>,
    processes: Processes,
    sockets: Sockets,
    publisher: Publisher,
    signer: Signer,
    /// The next event of each room.
    next: Vec<u32>,
    cable: Option<Cable>,
    // After the target, whose processes must have left it.
    quarter: Option<Quarter>,
    // Last, so that it ends after its clients.
    _nats: Nats,
}

/// A result, or why there is none: it is not installed.
type OrMissing<T> = Result<T, String>;

impl<'a> Bench<'a> {
    fn start(
        plan: &'a Plan,
        target: &Name,
        scenario: &'a Scenario,
        handle: &Handle,
        stop: &Arc<AtomicBool>,
    ) -> Result<OrMissing<Self>, Error> {
        let (nats, client) = handle.block_on(Nats::start(&plan.nats_server, &plan.herald))?;
        let signer = Signer::new(scenario.algorithm)?;
        let cable = match scenario.hardship {
            Some(Hardship::Cut) => Some(handle.block_on(Cable::to(nats.port))?),
            _ => None,
        };
        let nats_url = cable.as_ref().map_or(nats.url(), Cable::url);
        let setting = Setting {
            peers: &plan.peers,
            herald: &plan.herald,
            nats_url: &nats_url,
            nats_websocket_port: nats.websocket_port,
            nats: nats.id(),
            nats_server: &plan.nats_server,
            scenario: &scenario.name,
        };
        let target = match Target::start(target, &setting, &signer)? {
            Started::Ready(target) => target,
            Started::Missing(why) => return Ok(Err(why)),
        };
        let beside = match scenario.beside {
            Some(Beside::Rooms(group)) => group.rooms,
            _ => 0,
        };
        let rooms = scenario.rooms() + beside;
        let run = format!("{:x}", std::process::id());
        let markers = Arc::new(Markers::new(&run));
        let subject = |room: u32| format!("ws.{}.custom.bench", workspace(room));
        let by_http = scenario.by_http.then(|| target.endpoint()).transpose()?;
        Ok(Ok(Self {
            plan,
            scenario,
            processes: Processes {
                server: target.server().to_vec(),
                bridge: target.bridge().to_vec(),
                nats: vec![nats.id()],
            },
            sockets: Sockets::new(&run)?,
            publisher: Publisher {
                client,
                by_http,
                handle: handle.clone(),
                markers,
                subjects: Arc::new((0..rooms).map(subject).collect()),
                event_bytes: plan.event_bytes,
                stop: Arc::clone(stop),
            },
            target,
            signer,
            next: vec![0; rooms as usize],
            cable,
            quarter: None,
            _nats: nats,
        }))
    }

    fn measure(mut self) -> Result<Round, Error> {
        let mut round = Round::default();
        let plans = self.plans(&self.scenario.groups, 0, true)?;
        let before = Memory::of(self.target.server());
        let clock = Clock::read(&self.processes);
        let began = Instant::now();
        self.join_all(plans)?;
        if self.scenario.is_connects() {
            round.connects(&self.sockets, began.elapsed(), &clock, &self.processes);
            return Ok(round);
        }
        self.settle()?;
        let closed = &self.sockets.counts.closed;
        if !closed.is_empty() {
            let why = format!("sockets closed before the first event: {closed:?}");
            return Err(Error::Failed(why));
        }
        let sockets = f64::from(self.scenario.sockets());
        if let (Some(before), Some(after)) = (before, Memory::of(self.target.server()))
            && sockets > 0.0
        {
            let each = |after: u64, before: u64| (after as f64 - before as f64) / sockets;
            round.put("memory_user_kib_per_socket", each(after.user, before.user));
            round.put(
                "memory_kernel_kib_per_socket",
                each(after.kernel, before.kernel),
            );
        }
        if self.scenario.hardship == Some(Hardship::Quarter) {
            self.quarter = Some(Quarter::of(self.target.server())?);
        }
        let warm_up = self.planned(&self.scenario.groups, 0, WARM_UP, true);
        self.run_phase(warm_up, "warm-up")?;
        let time = self.plan.time.unwrap_or(self.scenario.time);
        let mut phases = Vec::new();
        if let Some(beside) = self.scenario.beside {
            let plan = self.planned(&self.scenario.groups, 0, time / 2, false);
            self.cut_later();
            phases.push(("without_", self.run_phase(plan, "without")?));
            self.join_beside(beside)?;
        }
        let mut plan = self.planned(&self.scenario.groups, 0, time, false);
        if let Some(Beside::Rooms(group)) = self.scenario.beside {
            plan.extend(self.planned(&[group], self.scenario.rooms(), time, false));
            plan.sort_by_key(|planned| planned.after);
        }
        self.cut_later();
        phases.push(("", self.run_phase(plan, &self.scenario.name)?));
        if let Some(peak) = Memory::peak(self.target.server()) {
            round.put("memory_peak_mib", peak as f64 / 1024.0);
        }
        self.sockets.end();
        let stored = self.stored()?;
        if self.scenario.by_http
            && let [(_, phase)] = phases.as_slice()
        {
            round.requests(phase, &stored);
            return Ok(round);
        }
        for (prefix, phase) in &phases {
            round.phase(prefix, phase, Some(&stored), |room| {
                self.scenario.sockets_of(room)
            });
        }
        round.compare();
        Ok(round)
    }

    fn cut_later(&self) {
        if let Some(cable) = &self.cable {
            self.publisher.handle.spawn(cable.cut_later());
        }
    }

    /// The events of some groups of rooms, the first of which is `first`.
    fn planned(
        &mut self,
        groups: &[Group],
        first: u32,
        time: Duration,
        is_warm_up: bool,
    ) -> Vec<Planned> {
        let mut all = Vec::new();
        let mut first = first;
        for group in groups {
            let rooms = first..first + group.rooms;
            first = rooms.end;
            let pace = match group.pace {
                // As many as make a server warm, and no burst.
                Pace::AtOnce(_) if is_warm_up => Pace::PerSecond(20.0),
                pace => pace,
            };
            all.extend(plan(pace, rooms, time, &mut self.next));
        }
        all.sort_by_key(|planned| planned.after);
        all
    }

    fn run_phase(&mut self, plan: Vec<Planned>, name: &str) -> Result<Phase, Error> {
        let phase = phase(
            &mut self.sockets,
            &self.publisher,
            &self.processes,
            plan,
            |room| self.scenario.sockets_of(room),
            name,
        )?;
        if self.publisher.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        self.target.check()?;
        Ok(phase)
    }

    /// Clients of rooms, the first of which is `first`.
    fn plans(
        &self,
        groups: &[Group],
        first: u32,
        measured: bool,
    ) -> Result<Vec<SocketPlan>, Error> {
        let mut plans = Vec::new();
        let mut room = first;
        for group in groups {
            for _ in 0..group.rooms {
                for socket in 0..group.sockets {
                    let place = (&*workspace(room), &*format!("user-{socket}"), room);
                    let plan = self
                        .target
                        .plan(&self.signer, place, measured, Manner::STEADY);
                    plans.push(plan?);
                }
                room += 1;
            }
        }
        Ok(plans)
    }

    /// Opens the measured sockets, in the way of the scenario.
    fn join_all(&mut self, plans: Vec<SocketPlan>) -> Result<(), Error> {
        let rate = match self.scenario.connect {
            Connect::Calmly => CALM_PER_S,
            Connect::AtOnce => f64::INFINITY,
            Connect::PerSecond(rate) => rate,
        };
        let all = plans.len() as u64;
        self.sockets.add(plans, rate);
        self.wait_for(|sockets| sockets.counts.opened >= all)
    }

    fn join_beside(&mut self, beside: Beside) -> Result<(), Error> {
        let plans = match beside {
            Beside::Sockets(count, manner) => {
                let plan = |socket| {
                    let place = ("bench-0", &*format!("beside-{socket}"), 0);
                    self.target.plan(&self.signer, place, false, manner)
                };
                (0..count).map(plan).collect::<Result<Vec<_>, _>>()?
            }
            Beside::Rooms(group) => self.plans(&[group], self.scenario.rooms(), false)?,
        };
        let all = plans.len() as u64;
        // What was there before it is of no phase.
        self.sockets.counted();
        self.sockets.add(plans, CALM_PER_S);
        self.wait_for(|sockets| sockets.beside.opened >= all)?;
        self.settle()
    }

    fn wait_for(&mut self, is_there: impl Fn(&Sockets) -> bool) -> Result<(), Error> {
        let give_up = Instant::now() + CONNECTING;
        while !is_there(&self.sockets) {
            self.sockets
                .step(Instant::now() + Duration::from_millis(20))?;
            if self.publisher.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let refused = &self.sockets.counts.refused;
            if Instant::now() > give_up || !refused.is_empty() {
                return Err(Error::Failed(format!(
                    "{} sockets are open, not all; refused: {refused:?}",
                    self.sockets.open()
                )));
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.sockets.run_until(Instant::now() + SETTLE)
    }

    /// Reads when the events of the measured rooms were stored: room by room, where others have many more.
    fn stored(&self) -> Result<Stored, Error> {
        let subjects = &self.publisher.subjects;
        let filters = match self.scenario.beside {
            Some(Beside::Rooms(_)) => {
                let measured = self.scenario.rooms() as usize;
                subjects.iter().take(measured).cloned().collect()
            }
            _ => vec!["ws.>".to_owned()],
        };
        let stream = Stream {
            direct_get: "$JS.API.DIRECT.GET.EVENTS".to_owned(),
            first: 1,
        };
        let (client, markers) = (&self.publisher.client, &self.publisher.markers);
        let read = stored::read(client, &stream, &filters, markers);
        self.publisher.handle.block_on(read)
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        self.sockets.end();
    }
}

fn workspace(room: u32) -> String {
    format!("bench-{room}")
}
