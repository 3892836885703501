use proptest::prelude::*;

use super::*;

fn user() -> UserKey {
    UserKey::new(None, "u1")
}

fn id(number: u128) -> SessionId {
    SessionId::from_u128(number)
}

fn other(session: u128, sequence: u64) -> Claim {
    Claim {
        session: id(session),
        sequence,
        time: None,
        own: false,
    }
}

/// What SESSIONS has last: another's claim, stored in this second.
fn stored(session: u128, sequence: u64, second: i64) -> LastClaim {
    LastClaim::Claim(StoredClaim {
        session: id(session).uuid(),
        sequence,
        time: DateTime::from_timestamp(second, 0).unwrap(),
        own: false,
    })
}

fn found(session: u128, sequence: u64, last: LastClaim) -> CheckedClaim {
    CheckedClaim {
        user: user(),
        session: id(session).uuid(),
        sequence,
        last,
    }
}

#[test]
fn the_older_of_two_sessions_here_is_replaced_when_the_newer_claim_is_stored() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    assert_eq!(claims.acknowledged(user(), id(1), 10, now), []);
    claims.pending(user(), id(2));
    assert_eq!(
        claims.acknowledged(user(), id(2), 11, now),
        [ClaimAction::Replaced(id(1))]
    );
}

#[test]
fn a_later_claim_heard_before_the_own_ack_waits_for_it() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    assert_eq!(claims.heard(user(), other(2, 11), now), []);
    assert_eq!(
        claims.acknowledged(user(), id(1), 10, now),
        [ClaimAction::Replaced(id(1))]
    );
}

#[test]
fn an_earlier_claim_heard_late_replaces_nobody_but_is_looked_into() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 10, now);
    assert_eq!(claims.heard(user(), other(2, 9), now), [ClaimAction::Check]);
}

#[test]
fn an_answer_about_the_past_takes_nothing_with_it() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 10, now);
    // SESSIONS was created again, and another claim is the first in it.
    assert_eq!(claims.heard(user(), other(2, 3), now), [ClaimAction::Check]);
    assert_eq!(claims.checked(&found(1, 9, LastClaim::Nothing), now), []);
    assert_eq!(
        claims.checked(&found(1, 10, stored(2, 3, 0)), now),
        [ClaimAction::Replaced(id(1))]
    );
}

#[test]
fn a_check_claims_again_over_a_message_that_is_no_claim() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 10, now);
    let actions = claims.checked(&found(1, 10, LastClaim::NoClaim(11)), now);
    let (session, last) = (id(1), 11);
    assert_eq!(actions, [ClaimAction::ClaimAgain { session, last }]);
    assert_eq!(claims.acknowledged(user(), id(1), 12, now), []);
}

#[test]
fn who_is_held_is_replaced_also_when_too_many_others_are_remembered() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 1, now);
    let later = now + REMEMBER;
    for number in 0..=REMEMBERED_MAX {
        let stranger = UserKey::new(None, &format!("stranger {number}"));
        let claim = other(number as u128 + 10, number as u64 + 2);
        assert_eq!(claims.heard(stranger, claim, later), []);
    }
    assert_eq!(claims.recent.len(), REMEMBERED_MAX);
    assert!(!claims.recent.contains_key(&user()));
    assert_eq!(
        claims.heard(user(), other(2, 1_000_000), later),
        [ClaimAction::Replaced(id(1))]
    );
}

#[test]
fn a_check_claims_again_what_sessions_lost() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 10, now);
    let again = |last| ClaimAction::ClaimAgain {
        session: id(1),
        last,
    };
    assert_eq!(
        claims.checked(&found(1, 10, LastClaim::Nothing), now),
        [again(0)]
    );
    assert_eq!(
        claims.checked(&found(1, 10, stored(2, 3, 0)), now),
        [again(3)]
    );
    // Re-claimed in the new SESSIONS, whose sequences start low; another's later one wins.
    claims.acknowledged(user(), id(1), 4, now);
    assert_eq!(
        claims.heard(user(), other(3, 5), now),
        [ClaimAction::Replaced(id(1))]
    );
}

#[test]
fn a_newcomer_stays_whose_claim_is_the_first_of_sessions_made_anew() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 100, now);
    claims.pending(user(), id(2));
    claims.pending(user(), id(3));
    assert_eq!(
        claims.acknowledged(user(), id(3), 2, now),
        [ClaimAction::Replaced(id(1))]
    );
    claims.left(user(), id(1));
    // The other one of the two was stored before, and is acknowledged later.
    assert_eq!(
        claims.acknowledged(user(), id(2), 1, now),
        [ClaimAction::Replaced(id(2))]
    );
}

#[test]
fn another_gateways_newcomer_stays_whose_claim_is_in_sessions_made_anew() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 100, now);
    assert_eq!(claims.heard(user(), other(2, 1), now), [ClaimAction::Check]);
    assert_eq!(
        claims.checked(&found(1, 100, stored(2, 1, 0)), now),
        [ClaimAction::Replaced(id(1))]
    );
    claims.left(user(), id(1));
    assert_eq!(claims.heard(user(), other(3, 2), now), []);
}

#[test]
fn of_a_restored_sessions_the_store_times_say_what_is_newer() {
    let now = Instant::now();
    let at = |second| DateTime::from_timestamp(second, 0);
    let timed = |session, sequence, second| Claim {
        time: at(second),
        ..other(session, sequence)
    };
    for (second, newer) in [(50, false), (150, true)] {
        let mut claims = Claims::default();
        claims.pending(user(), id(1));
        claims.acknowledged(user(), id(1), 100, now);
        claims.heard(user(), timed(1, 100, 100), now);
        let got = claims.checked(&found(1, 100, stored(2, 40, second)), now);
        let want = if newer {
            ClaimAction::Replaced(id(1))
        } else {
            ClaimAction::ClaimAgain {
                session: id(1),
                last: 40,
            }
        };
        assert_eq!(got, [want], "{second}");
    }
}

#[test]
fn a_check_that_was_overtaken_says_nothing() {
    let now = Instant::now();
    let mut claims = Claims::default();
    claims.pending(user(), id(1));
    claims.acknowledged(user(), id(1), 10, now);
    assert_eq!(claims.checked(&found(1, 9, LastClaim::Nothing), now), []);
}

#[test]
fn the_latest_acknowledged_session_stands_until_it_leaves() {
    let now = Instant::now();
    let mut claims = Claims::default();
    assert_eq!(claims.standing(user()), None);
    claims.pending(user(), id(1));
    assert_eq!(claims.standing(user()), None);
    claims.acknowledged(user(), id(1), 10, now);
    claims.pending(user(), id(2));
    assert_eq!(claims.standing(user()), Some(id(1)));
    claims.acknowledged(user(), id(2), 11, now);
    assert_eq!(claims.standing(user()), Some(id(2)));
    // Who leaves without an acknowledged claim never stood, nor does who has left before.
    claims.pending(user(), id(3));
    assert!(!claims.left(user(), id(3)));
    assert!(claims.left(user(), id(2)));
    assert!(!claims.left(user(), id(2)));
}

proptest! {
    /// Several gateways, each hearing all claims in any order and its own acks at any time: when
    /// all has been heard, exactly the session of the last claim stands.
    #[test]
    fn the_last_claim_stands_alone_whatever_the_order(
        owners in proptest::collection::vec(0usize..3, 1..12),
        shuffles in proptest::collection::vec(any::<u32>(), 3 * 24),
    ) {
        let now = Instant::now();
        let mut standing = Vec::new();
        for gateway in 0..3usize {
            let mut claims = Claims::default();
            let mut alive = Vec::new();
            let mut events = Vec::new();
            for (index, owner) in owners.iter().enumerate() {
                let session = id(index as u128 + 1);
                if *owner == gateway {
                    claims.pending(user(), session);
                    alive.push(session);
                    events.push((index, true));
                }
                events.push((index, false));
            }
            events.sort_by_key(|(index, ack)| shuffles[gateway * 24 + index * 2 + usize::from(*ack)]);
            for (index, ack) in events {
                let session = id(index as u128 + 1);
                let sequence = index as u64 + 1;
                let actions = if ack {
                    claims.acknowledged(user(), session, sequence, now)
                } else {
                    claims.heard(user(), Claim { session, sequence, time: None, own: owners[index] == gateway }, now)
                };
                for action in actions {
                    if let ClaimAction::Replaced(replaced) = action {
                        alive.retain(|known| *known != replaced);
                        claims.left(user(), replaced);
                    }
                }
            }
            standing.extend(alive);
        }
        prop_assert_eq!(standing, vec![id(owners.len() as u128)]);
    }
}
