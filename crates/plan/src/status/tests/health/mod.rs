//! The condition Healthy, from what a control plane says to what is published: each row of the contract's table, and each trap
//! of the real clients and servers that concerns evidence.

mod guards;
mod identities;
mod properties;
mod readiness;
mod reports;
mod steps;
mod table;
mod world;
