//! One test binary. A module a feature; `support` starts the real binary, containers and clients.

#![allow(unreachable_pub)]

mod support;

mod access;
mod acme_worker;
mod attacks;
mod broker;
mod certificates;
mod clients;
mod compose_examples;
mod conf;
mod conformance;
mod conversation;
mod crash;
mod durable;
mod engine;
mod fuzz;
mod health;
mod house;
mod image;
mod import;
mod init;
mod limits;
mod listeners;
mod logging;
mod packets;
mod passwd;
mod permissions;
mod persistence;
mod power_cut;
mod repair;
mod shards;
mod shortage;
mod sim;
mod sparing;
mod supervisor;
mod tls;
mod websocket;
