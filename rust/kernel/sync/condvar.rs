// SPDX-License-Identifier: GPL-2.0

impl CondVar {
    /// Releases the lock and waits for a notification in uninterruptible mode, for a limited time.
    ///
    /// Like [`CondVar::wait`], it may also wake up spuriously. Returns the jiffies that are left,
    /// zero if the time is over. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::sync::{new_condvar, new_mutex};
    /// # use pin_init::stack_pin_init;
    ///
    /// stack_pin_init!(let done = new_mutex!(false));
    /// stack_pin_init!(let changed = new_condvar!());
    ///
    /// let mut guard = done.lock();
    /// let mut left = 2;
    ///
    /// // Nobody comes.
    /// while !*guard && left > 0 {
    ///     left = changed.wait_timeout(&mut guard, left);
    /// }
    /// assert!(!*guard);
    /// ```
    #[must_use = "zero tells that the time is over"]
    pub fn wait_timeout<T: ?Sized, B: Backend>(
        &self,
        guard: &mut Guard<'_, T, B>,
        jiffies: Jiffies,
    ) -> Jiffies {
        let jiffies = jiffies.try_into().unwrap_or(MAX_SCHEDULE_TIMEOUT);

        // What is left of a timeout is never negative.
        self.wait_internal(TASK_UNINTERRUPTIBLE, guard, jiffies) as Jiffies
    }
}
