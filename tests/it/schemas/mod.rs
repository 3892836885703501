//! The contract as schemas: what they say is what the gateway really sends and takes, and they are there for who asks.

mod cases;
mod events;
mod judge;
mod served;
mod socket;
