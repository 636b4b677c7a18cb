# SPDX-License-Identifier: GPL-2.0
"""A made-up kernel tree with the pieces of scripts/pieces.py, and little else."""

FILES = {
    "include/linux/libnvdimm.h": """
/* Not the definition: #define NVDIMM_FLUSH_ASYNC 2 */
#define NVDIMM_FLUSH_ASYNC 1
""",
    "drivers/nvdimm/region_devs.c": """
int nvdimm_flush(struct nd_region *nd_region, struct bio *bio)
{
\tint rc = 0;

\tif (!nd_region->flush)
\t\trc = generic_nvdimm_flush(nd_region);
\telse {
\t\trc = nd_region->flush(nd_region, bio);
\t\tif (rc > 0)
\t\t\treturn rc;
\t\tif (rc && rc != -ENOMEM)
\t\t\trc = -EIO;
\t}

\treturn rc;
}
""",
    "drivers/nvdimm/pmem.c": """
static void pmem_submit_bio(struct bio *bio)
{
\tint ret = 0;

\tif (bio->bi_opf & REQ_PREFLUSH) {
\t\tret = nvdimm_flush(nd_region, NULL);
\t\tif (ret) {
\t\t\tbio->bi_status = errno_to_blk_status(ret);
\t\t\tbio_endio(bio);
\t\t\treturn;
\t\t}
\t}

\t/* Without data there is nothing to copy. */
\tif (bio_has_data(bio)) {
\t\tbio_for_each_segment(bvec, bio, iter) {
\t\t\tcopy(bvec);
\t\t}
\t}

\tif ((bio->bi_opf & REQ_FUA) && !bio->bi_status) {
\t\tret = nvdimm_flush(nd_region, bio);
\t\tif (ret == NVDIMM_FLUSH_ASYNC)
\t\t\treturn;
\t}

\tbio_endio(bio);
}

static void pmem_other(struct bio *bio)
{
}
""",
    "rust/kernel/sync/lock/spinlock.rs":
        "pub type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;\n",
    "rust/kernel/driver.rs": "pub trait DriverLayout {\n    type DriverData<'bound>;\n}\n",
    "rust/kernel/sync/atomic.rs": "pub struct Atomic<T: AtomicType>(T);\n",
    "rust/kernel/debugfs.rs": "pub struct Scope<T> {\n",
    "rust/kernel/tracepoint.rs": "macro_rules! declare_trace {\n",
    "rust/kernel/impl_flags.rs": "macro_rules! impl_flags {\n",
}


def make(tree):
    """Write the files."""
    for name, text in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def change(tree, old, new):
    """Replace a text that is in exactly one of the files."""
    found = [name for name, text in FILES.items() if old in text]
    assert len(found) == 1, f"{old}: in {found}"
    (tree / found[0]).write_text(FILES[found[0]].replace(old, new))
