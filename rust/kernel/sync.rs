// SPDX-License-Identifier: GPL-2.0

pub mod wait_list;

pub use wait_list::WaitList;
