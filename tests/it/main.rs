//! Herald's integration tests: one binary, one file per promise, real servers.
//!
//! Each test starts what it needs with [`support`] and leaves nothing behind.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it sees and fails by panicking; clippy's own exception for tests covers only functions marked #[test]"
)]

mod account_limits;
mod admin;
mod asked_again;
mod autobahn;
mod bad_events;
mod bad_tokens;
mod bench;
mod bursts;
mod check;
mod close_codes;
mod closing;
mod commands;
mod configuration;
mod console;
mod contract;
mod control_messages;
mod costs;
mod dead_letters;
mod delivery;
mod denied;
mod dev;
mod direct_get;
mod edge;
mod edited_streams;
mod fair_workspaces;
mod faults;
mod flaps;
mod floods;
mod frames;
mod guide;
mod harness;
mod health;
mod hostile_headers;
mod hostile_subjects;
mod issuers;
mod keys_by_address;
mod large_rooms;
mod limits;
mod migration_faults;
mod module_order;
mod migrations;
mod names;
mod nats_away;
mod nats_unfit;
mod no_leaks;
mod not_yet;
mod odd_servers;
mod open_files;
mod operator;
mod operator_commands;
mod operator_hostile;
mod order;
mod overload;
mod permissions;
mod plain_english;
mod prefix;
mod publishing;
mod publishing_http;
mod recipes;
mod reload;
mod revocation;
mod revocation_race;
mod rules_guide;
mod schemas;
mod sdk;
mod sdks;
mod signals;
mod subprotocols;
mod support;
mod telemetry;
mod token_limits;
mod unreachable;
mod unreadable;
mod unroutable;
mod ways_in;
mod withdrawn_keys;
