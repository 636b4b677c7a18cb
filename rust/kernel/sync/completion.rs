// SPDX-License-Identifier: GPL-2.0

use crate::time::Jiffies;

impl Completion {
    /// Signal one task waiting on this completion.
    ///
    /// Wakes up the task that has waited longest. If none waits, the next one that waits does not
    /// have to: each call to this method lets exactly one wait end. The caller's earlier memory
    /// accesses are visible to the task that is woken up.
    ///
    /// May be called from any context.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::sync::Completion;
    /// use pin_init::stack_pin_init;
    ///
    /// stack_pin_init!(let done = Completion::new());
    ///
    /// done.complete();
    /// assert!(done.is_done());
    /// done.wait_for_completion();
    /// assert!(!done.is_done());
    /// ```
    #[inline]
    pub fn complete(&self) {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        unsafe { bindings::complete(self.as_raw()) };
    }

    /// Return whether a wait would end at once.
    ///
    /// May be called from any context.
    #[inline]
    pub fn is_done(&self) -> bool {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        unsafe { bindings::completion_done(self.as_raw()) }
    }

    /// Wait for completion of a task if that is possible without sleeping.
    ///
    /// Returns whether it was; as after [`Completion::wait_for_completion`], the signal is then
    /// used up. May be called from any context.
    #[inline]
    pub fn try_wait_for_completion(&self) -> bool {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        unsafe { bindings::try_wait_for_completion(self.as_raw()) }
    }

    /// Wait for completion of a task, but not longer than `timeout`.
    ///
    /// The wait is not interruptible. Returns how much of the time was left, which is at least
    /// one jiffy, or [`ETIMEDOUT`] if the time is over and the task not complete. A time that is
    /// too long for the scheduler is no limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{sync::Completion, time::msecs_to_jiffies};
    /// use pin_init::stack_pin_init;
    ///
    /// stack_pin_init!(let done = Completion::new());
    ///
    /// assert_eq!(done.wait_for_completion_timeout(msecs_to_jiffies(1)), Err(ETIMEDOUT));
    /// done.complete();
    /// assert!(done.wait_for_completion_timeout(msecs_to_jiffies(1)).is_ok());
    /// ```
    pub fn wait_for_completion_timeout(&self, timeout: Jiffies) -> Result<Jiffies> {
        let timeout = timeout.min(crate::task::MAX_SCHEDULE_TIMEOUT as Jiffies);

        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        match unsafe { bindings::wait_for_completion_timeout(self.as_raw(), timeout) } {
            0 => Err(ETIMEDOUT),
            left => Ok(left),
        }
    }

    /// Make the completion as good as new, in particular after [`Completion::complete_all`].
    ///
    /// This is not synchronised with anything, so nobody else may be using the completion. The
    /// exclusive reference proves it.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::sync::Completion;
    /// use pin_init::stack_pin_init;
    ///
    /// stack_pin_init!(let done = Completion::new());
    ///
    /// done.complete_all();
    /// assert!(done.is_done());
    /// done.as_mut().reinit();
    /// assert!(!done.is_done());
    /// ```
    #[inline]
    pub fn reinit(self: Pin<&mut Self>) {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`, to which nobody
        // else has access during the call.
        unsafe { bindings::reinit_completion(self.as_raw()) };
    }
}
