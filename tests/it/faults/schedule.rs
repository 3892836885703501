//! Which faults come when. Pure: a seed gives the same schedule each time.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::world::GATEWAYS;
use crate::support::nats::cluster::NODES;

/// A fault begins each time this has passed.
const EVERY: Duration = Duration::from_secs(3);
/// Between two kills of a node.
const BETWEEN_KILLS: Duration = Duration::from_secs(15);
/// The end of a run is left alone.
const QUIET_END: Duration = Duration::from_secs(5);
/// What a node needs after it was away, before another one may go.
const NODE_RECOVERS: Duration = Duration::from_secs(4);

/// Something that goes wrong for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The leader of a stream steps down.
    StepDown(&'static str),
    /// The connection of a gateway to a node is cut.
    Cut {
        gateway: usize,
        node: usize,
    },
    /// A gateway is cut off from all nodes.
    CutOff {
        gateway: usize,
    },
    /// All that passes between a gateway and the nodes takes so long more.
    Delay {
        gateway: usize,
        by: Duration,
    },
    /// Nothing passes between a gateway and the nodes, and no connection ends.
    Silence {
        gateway: usize,
    },
    /// SIGSTOP, then SIGCONT.
    PauseGateway {
        gateway: usize,
    },
    PauseNode {
        node: usize,
    },
    /// SIGTERM, and a start at the end.
    StopNode {
        node: usize,
    },
    /// SIGKILL, and a start at the end.
    KillNode {
        node: usize,
    },
    /// All nodes but this one are killed, and start at the end.
    QuorumLoss {
        survivor: usize,
    },
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

impl Fault {
    /// Whether a node is away meanwhile.
    fn takes_a_node(self) -> bool {
        matches!(
            self,
            Self::PauseNode { .. }
                | Self::StopNode { .. }
                | Self::KillNode { .. }
                | Self::QuorumLoss { .. }
        )
    }

    fn is_kill(self) -> bool {
        matches!(self, Self::KillNode { .. } | Self::QuorumLoss { .. })
    }
}

/// The faults of a run of `length`, in order. With `quorum_loss`, one of them is that.
pub(super) fn schedule(seed: u64, length: Duration, quorum_loss: bool) -> Vec<Planned> {
    let mut rng = Rng::with_seed(seed);
    let mut planned = Vec::new();
    let mut nodes_whole_at = Duration::ZERO;
    let mut last_kill: Option<Duration> = None;
    let quorum_loss_at = quorum_loss.then(|| (length / 3).max(EVERY));
    let mut is_lost = false;
    let mut at = EVERY;
    while at + QUIET_END < length {
        let left = length - QUIET_END - at;
        let (fault, lasts) = if !is_lost && quorum_loss_at.is_some_and(|lost| at >= lost) {
            is_lost = true;
            let survivor = rng.usize(..NODES);
            (Fault::QuorumLoss { survivor }, Duration::from_secs(4))
        } else {
            // Before it all nodes are whole, and none has just been killed.
            let before = quorum_loss_at.filter(|_| !is_lost);
            loop {
                let (fault, lasts) = draw(&mut rng);
                let nodes_are_whole = at >= nodes_whole_at
                    && before.is_none_or(|lost| at + lasts + NODE_RECOVERS < lost);
                let may_kill = last_kill.is_none_or(|last| at >= last + BETWEEN_KILLS)
                    && before.is_none_or(|lost| at + BETWEEN_KILLS < lost);
                if lasts <= left
                    && (nodes_are_whole || !fault.takes_a_node())
                    && (may_kill || !fault.is_kill())
                {
                    break (fault, lasts);
                }
            }
        };
        if fault.takes_a_node() {
            nodes_whole_at = at + lasts + NODE_RECOVERS;
        }
        if fault.is_kill() {
            last_kill = Some(at);
        }
        planned.push(Planned { at, lasts, fault });
        at += EVERY;
    }
    planned
}

fn draw(rng: &mut Rng) -> (Fault, Duration) {
    let gateway = rng.usize(..GATEWAYS);
    let node = rng.usize(..NODES);
    let short = Duration::from_millis(rng.u64(500..2500));
    match rng.u8(..20) {
        0..=4 => (Fault::StepDown("EVENTS"), Duration::ZERO),
        5..=6 => (Fault::StepDown("SESSIONS"), Duration::ZERO),
        7..=8 => (Fault::Cut { gateway, node }, short),
        9..=10 => (Fault::CutOff { gateway }, short),
        11 => {
            let by = Duration::from_millis(rng.u64(50..300));
            (Fault::Delay { gateway, by }, short)
        }
        12 => (Fault::Silence { gateway }, short),
        13 => (
            Fault::PauseGateway { gateway },
            short.min(Duration::from_secs(2)),
        ),
        14..=15 => (Fault::PauseNode { node }, short * 2),
        16 => (Fault::StopNode { node }, short),
        _ => (Fault::KillNode { node }, short * 2),
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, lasts, fault } = self;
        write!(f, "{at:>6.1?} {fault:?}, {lasts:.1?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_keeps_its_rules_and_is_the_same_each_time() {
        for seed in 0..500 {
            for (seconds, quorum_loss) in [(20, true), (60, false), (60, true)] {
                let length = Duration::from_secs(seconds);
                let planned = schedule(seed, length, quorum_loss);
                assert_eq!(planned, schedule(seed, length, quorum_loss));
                let kills: Vec<Duration> = planned
                    .iter()
                    .filter(|planned| planned.fault.is_kill())
                    .map(|planned| planned.at)
                    .collect();
                assert!(kills.windows(2).all(|two| two[1] - two[0] >= BETWEEN_KILLS));
                let nodes: Vec<&Planned> = planned
                    .iter()
                    .filter(|planned| planned.fault.takes_a_node())
                    .collect();
                assert!(
                    nodes
                        .windows(2)
                        .all(|two| two[0].at + two[0].lasts < two[1].at)
                );
                assert!(
                    planned
                        .iter()
                        .all(|planned| planned.at + planned.lasts + QUIET_END <= length)
                );
                let lost = planned
                    .iter()
                    .filter(|planned| matches!(planned.fault, Fault::QuorumLoss { .. }))
                    .count();
                assert!(
                    lost == usize::from(quorum_loss),
                    "seed {seed}: {lost}, {planned:?}"
                );
            }
        }
    }
}
