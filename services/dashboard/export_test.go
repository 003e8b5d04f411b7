// SPDX-License-Identifier: Apache-2.0

package dashboard

// LiveReaders is how many may hear of changes of the public log at once.
const LiveReaders = liveReaders
