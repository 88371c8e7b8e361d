//! taskcast itself, and the reference that everything is compared with.

mod amqp;
pub mod brokers;
pub mod floor;
pub mod taskcast;
