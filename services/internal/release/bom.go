// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// bom is the bill of materials of a platform's programs: each program by its digest, each part by package URL, digest and licence.
func (s *source) bom(p Platform, bin string, parts []part) ([]byte, error) {
	main := cyclonedx.Component{
		BOMRef: "epatch", Type: cyclonedx.ComponentTypeApplication, Name: "epatch", Version: s.version,
		Description: "CAcert Emergency Patches for " + p.String(), Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
		ExternalReferences: &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeVCS, URL: "cacert.org/emergency", Comment: "commit " + s.commit}},
	}
	var components []cyclonedx.Component
	for _, name := range p.Programs {
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		sum := sha256.Sum256(data)
		components = append(components, cyclonedx.Component{
			BOMRef: "bin/" + name, Type: cyclonedx.ComponentTypeFile, Name: "bin/" + name, Version: s.version,
			Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		})
	}
	var refs []string
	for _, x := range parts {
		c, err := x.component()
		if err != nil {
			return nil, err
		}
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Timestamp: s.at.Format(time.RFC3339), Component: &main}
	bom.Components, bom.Dependencies = &components, &[]cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	var b bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	return b.Bytes(), nil
}

func (x *part) component() (cyclonedx.Component, error) {
	purl := "pkg:golang/" + x.name + "@" + x.version
	if x.kind == kindBrowser {
		purl = "pkg:npm/" + strings.Replace(x.name, "@", "%40", 1) + "@" + url.PathEscape(x.version)
	}
	c := cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: x.name, Version: x.version, PackageURL: purl}
	if x.sum != "" {
		sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(x.sum, "h1:"))
		if err != nil {
			return c, fmt.Errorf("digest of %s: %w", x.name, err)
		}
		c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}} // of the module's tree, as go.sum has it
	}
	var all cyclonedx.Licenses
	for _, id := range x.ids {
		all = append(all, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	c.Licenses = &all
	return c, nil
}
