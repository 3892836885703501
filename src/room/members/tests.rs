use std::collections::{BTreeSet, VecDeque};
use std::sync::LazyLock;

use chrono::DateTime;
use proptest::prelude::*;
use tokio::runtime::{Handle, Runtime};

use super::*;
use crate::event::WorkspaceSlug;
use crate::socket::Frame;

fn position(sequence: u64) -> Position {
    Position {
        sequence,
        time: DateTime::from_timestamp_nanos(sequence.cast_signed()),
    }
}

fn join(members: &mut Members, number: u128, subject: &str, start_position: u64) -> Writer {
    join_with(members, number, subject, start_position, 1024)
}

fn join_with(
    members: &mut Members,
    number: u128,
    subject: &str,
    start_position: u64,
    limit: usize,
) -> Writer {
    let writer = Writer::new(limit, Arc::default());
    members.join(
        SessionId::from_u128(number),
        JoinRequest {
            workspace: WorkspaceSlug::parse("acme").unwrap(),
            user: UserKey::new(None, subject),
            subject: subject.into(),
            writer: writer.clone(),
        },
        (position(start_position), Instant::now()),
        Successor::default(),
    );
    writer
}

fn to(users: &[&str]) -> Recipients {
    Recipients::Users(users.iter().map(|user| (*user).to_owned()).collect())
}

fn addressed(sequence: u64, recipients: Recipients, length: usize) -> Addressed {
    Addressed {
        position: position(sequence),
        id: String::new(),
        recipients,
        frame: Frame::of_length(length),
    }
}

/// What comes of a batch that no shard has.
fn fan_out(members: &mut Members, batch: Vec<Addressed>) -> FanOut {
    let round = members.fan_out(FanOutRound::new(batch, None, Instant::now()));
    round.expect("there are no shards").out
}

#[test]
fn a_notification_goes_to_its_recipients_above_their_start_position() {
    let mut members = Members::default();
    join(&mut members, 1, "ann", 5);
    join(&mut members, 2, "bob", 7);
    let delivered = |members: &mut Members, sequence, recipients| {
        fan_out(members, vec![addressed(sequence, recipients, 1)]).delivered
    };
    assert_eq!(delivered(&mut members, 6, Recipients::Everyone), 1);
    assert_eq!(delivered(&mut members, 8, Recipients::Everyone), 2);
    assert_eq!(delivered(&mut members, 8, to(&["ann", "eve"])), 1);
    assert_eq!(delivered(&mut members, 8, to(&[])), 0);
    members.leave(SessionId::from_u128(1));
    assert_eq!(delivered(&mut members, 8, to(&["ann"])), 0);
}

#[test]
fn a_full_queue_ends_one_membership_and_no_other() {
    let mut members = Members::default();
    join(&mut members, 1, "ann", 0);
    join(&mut members, 2, "bob", 0);
    let first = fan_out(&mut members, vec![addressed(1, to(&["ann"]), 500)]);
    assert_eq!((first.delivered, first.slow.len()), (1, 0));
    let second = fan_out(&mut members, vec![addressed(2, to(&["ann"]), 500)]);
    assert_eq!((second.delivered, second.slow.len()), (0, 1));
    let third = fan_out(&mut members, vec![addressed(4, Recipients::Everyone, 500)]);
    assert_eq!((third.delivered, third.slow.len()), (1, 0));
}

#[test]
fn a_burst_waits_for_a_queue_that_is_half_full_until_its_socket_has_had_its_turn() {
    let mut members = Members::default();
    let writer = join(&mut members, 1, "ann", 0);
    let mut now = Instant::now();
    assert_eq!(members.pressed(|| now), None);
    fan_out(&mut members, vec![addressed(1, Recipients::Everyone, 600)]);
    for _ in 0..10_000 {
        now = members.pressed(|| now).expect("a wait");
    }
    writer.end_after(CloseReason::Restart);
    assert_eq!(members.pressed(|| now), None);
}

fn recipients(users: Option<&BTreeSet<usize>>) -> Recipients {
    users.map_or(Recipients::Everyone, |users| {
        Recipients::Users(users.iter().map(|user| format!("u{user}")).collect())
    })
}

proptest! {
    /// Sent together or one by one: each socket gets the same, in the same order.
    #[test]
    fn a_batch_is_its_notifications_one_after_the_other(
        start_positions in prop::collection::vec(0u64..12, 1..6),
        events in prop::collection::vec(prop::option::of(prop::collection::btree_set(0usize..6, 0..4)), 1..20),
    ) {
        let count = events.len();
        let got = |size: usize| {
            let mut members = Members::default();
            let writers: Vec<_> = start_positions.iter().enumerate().map(|(user, start_position)| {
                join_with(&mut members, user as u128, &format!("u{user}"), *start_position, usize::MAX)
            }).collect();
            let events = (1u64..).zip(&events).map(|(sequence, users)| {
                addressed(sequence, recipients(users.as_ref()), usize::try_from(sequence).unwrap())
            });
            let mut delivered = 0;
            let mut batch: Vec<Addressed> = Vec::new();
            for event in events {
                let is_alike = batch.last().is_none_or(|last| last.is_for_all() == event.is_for_all());
                if !is_alike || batch.len() == size {
                    delivered += fan_out(&mut members, std::mem::take(&mut batch)).delivered;
                }
                batch.push(event);
            }
            delivered += fan_out(&mut members, batch).delivered;
            (delivered, writers.iter().map(Writer::drained).collect::<Vec<_>>())
        };
        prop_assert_eq!(got(1), got(count));
    }
}

/// What happens in a room.
#[derive(Debug, Clone)]
enum Happening {
    Join(usize),
    /// The oldest leave, as sockets do whose connection is gone.
    Leave(usize),
    /// The oldest is.
    Replace,
    /// So many events for these, or for all, come together.
    Events(Option<BTreeSet<usize>>, u64),
    /// The stream is found to be another one.
    OtherStream,
    /// The shards have the time to do all that they have.
    Settle,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let users = prop::option::weighted(0.3, prop::collection::btree_set(0usize..600, 0..300));
    let happen = prop_oneof![
        2 => (1usize..200).prop_map(Happening::Join),
        2 => (1usize..200).prop_map(Happening::Leave),
        2 => Just(Happening::Replace),
        8 => (users, 1u64..4).prop_map(|(users, count)| Happening::Events(users, count)),
        1 => Just(Happening::OtherStream),
        1 => Just(Happening::Settle),
    ];
    prop::collection::vec(happen, 1..30)
}

/// A room of which everything is known.
#[derive(Default)]
struct Model {
    members: Members,
    /// By user; what an ended one had by its end.
    writers: Vec<(Writer, Option<Vec<u8>>)>,
    members_left: VecDeque<usize>,
    sequence: u64,
    delivered: u64,
}

impl Model {
    async fn run(happenings: &[Happening], runtime: Option<&Handle>) -> Self {
        let mut model = Self::default();
        model.members.workers = runtime.cloned();
        let large = Happening::Join(LARGE + 1);
        for happen in [&large]
            .into_iter()
            .chain(happenings)
            .chain([&Happening::Settle])
        {
            model.happen(happen).await;
        }
        model
    }

    async fn happen(&mut self, happen: &Happening) {
        match happen {
            Happening::Join(count) => {
                for _ in 0..*count {
                    let user = self.writers.len();
                    // It may be that it asked to join before what was given out last.
                    let start_position = self.sequence.saturating_sub(user as u64 % 3);
                    let name = format!("u{user}");
                    let number = user as u128;
                    let writer =
                        join_with(&mut self.members, number, &name, start_position, usize::MAX);
                    self.writers.push((writer, None));
                    self.members_left.push_back(user);
                }
            }
            Happening::Leave(count) => {
                for _ in 0..*count {
                    self.end();
                }
            }
            Happening::Replace => self.end(),
            Happening::Events(users, count) => {
                let batch = (0..*count).map(|_| {
                    self.sequence += 1;
                    let length = usize::try_from(self.sequence).unwrap();
                    addressed(self.sequence, recipients(users.as_ref()), length)
                });
                let round = FanOutRound::new(batch.collect(), None, Instant::now());
                if let Some(round) = self.members.fan_out(round) {
                    self.delivered += round.out.delivered;
                }
            }
            Happening::OtherStream => self.members.forget_start_positions(Instant::now()),
            Happening::Settle => self.settle().await,
        }
    }

    /// The oldest is told to end, and is no member from then on.
    fn end(&mut self) {
        let Some(user) = self.members_left.pop_front() else {
            return;
        };
        self.members.leave(SessionId::from_u128(user as u128));
        let (writer, had) = &mut self.writers[user];
        writer.end_after(CloseReason::Replaced);
        *had = Some(writer.drained());
    }

    async fn settle(&mut self) {
        let (answer, answered) = oneshot::channel();
        self.members.when_written(answer);
        while self
            .members
            .shards
            .as_ref()
            .is_some_and(|shards| !shards.is_idle())
        {
            let report = self.members.next_report().await.expect("the runtime lives");
            self.members.reported(report);
            while let Some(round) = self.members.finished() {
                self.delivered += round.out.delivered;
                for answer in round.answers {
                    answer.send(()).expect("it is waited for");
                }
            }
        }
        answered.await.expect("the mark has passed all shards");
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(3).build().expect("a runtime")
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// While it grows and shrinks, and events are on their way.
    #[test]
    fn a_room_in_shards_gives_each_socket_what_any_room_does(happenings in happenings()) {
        let (whole, parts) = RUNTIME.block_on(async {
            (Model::run(&happenings, None).await, Model::run(&happenings, Some(RUNTIME.handle())).await)
        });
        for ((one, before), (other, had)) in whole.writers.iter().zip(&parts.writers) {
            // Who ends has some of what was on its way then, and gets nothing more.
            let before = before.as_deref().unwrap_or_default();
            prop_assert!(before.starts_with(had.as_deref().unwrap_or_default()));
            prop_assert_eq!(one.drained(), other.drained());
        }
        if parts.members_left.len() == parts.writers.len() {
            prop_assert_eq!(whole.delivered, parts.delivered);
        }
    }
}
