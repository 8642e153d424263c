//! A token's life under paused time: the exchange itself, between a token service that does as it is told and callers who look tokens up.

mod dormant;
mod endings;
mod flood;
mod keys;
mod outages;
mod presented;
mod rejection;
mod renewal;
mod sessions;
mod stand;
mod validity;
