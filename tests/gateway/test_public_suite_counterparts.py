"""Every top-level test of the public gateway conformance suite (v0.13.1) has a counterpart among ours."""

from __future__ import annotations

from collections.abc import Callable

from tests.gateway import test_public_suite as paths
from tests.gateway import test_public_suite_hosts as hosts
from tests.gateway import test_public_suite_trustless as trustless

# TestMetadata only reports which gateway was tested.
COUNTERPARTS: dict[str, list[Callable[..., object]]] = {
    "TestDNSLinkGatewayIPNS": [hosts.test_dnslinks_to_paths_and_names],
    "TestDNSLinkGatewayUnixFSDirectoryListing": [hosts.test_listings_of_dnslinks],
    "TestDNSLinkGatewayWithSubpath": [hosts.test_dnslinks_to_paths_and_names],
    "TestMetadata": [paths.test_hello],
    "TestCors": [paths.test_others_may_read],
    "TestGatewayJsonCbor": [paths.test_json_in_unixfs],
    "TestCodecMismatchReturns406": [paths.test_nothing_is_converted_to_another_codec],
    "TestPlainCodec": [paths.test_plain_codecs],
    "TestPathing": [paths.test_paths_into_nodes],
    "TestNativeDag": [
        paths.test_native_nodes,
        paths.test_only_if_cached,
        paths.test_nodes_by_name_and_as_pages,
    ],
    "TestGatewayJSONCborAndIPNS": [paths.test_nodes_by_name_and_as_pages],
    "TestGatewayIPNSPath": [paths.test_records_with_good_and_bad_signatures],
    "TestRedirectCanonicalIPNS": [paths.test_names_are_written_in_one_way],
    "TestGatewayIPNSRecordWithSubpath": [paths.test_a_record_that_leads_to_a_path],
    "TestGatewayBlock": [paths.test_a_block_as_it_is],
    "TestTar": [paths.test_tar],
    "TestUnixFSDirectoryListing": [paths.test_folders_are_listed_with_links_and_hashes],
    "TestGatewayCache": [
        paths.test_caching_of_immutable_paths,
        paths.test_only_if_cached,
        paths.test_if_none_match,
    ],
    "TestGatewayCacheWithIPNS": [paths.test_caching_of_names, paths.test_if_none_match],
    "TestGatewaySymlink": [paths.test_a_symlink_is_its_target],
    "TestGatewayUnixFSFileRanges": [paths.test_ranges_of_files, paths.test_ranges_where_a_block_is_nowhere],
    "TestPathGatewayMiscellaneous": [paths.test_percent_signs_in_names],
    "TestRedirectsFileSupport": [
        hosts.test_rules_that_redirect,
        hosts.test_rules_that_answer,
        hosts.test_files_of_rules_good_and_bad,
    ],
    "TestRedirectsFileSupportWithDNSLink": [hosts.test_rules_of_dnslinks],
    "TestRedirectsFileWithIfNoneMatchHeader": [hosts.test_if_none_match_of_what_a_rule_answers],
    "TestUnixFSDirectoryListingOnSubdomainGateway": [hosts.test_listings_on_subdomains],
    "TestGatewaySubdomains": [
        hosts.test_content_paths_move_to_subdomains,
        hosts.test_what_a_subdomain_serves,
        hosts.test_what_a_subdomain_cannot_be,
        hosts.test_addresses_of_protocol_handlers,
        hosts.test_forwarded_hosts,
    ],
    "TestGatewaySubdomainAndIPNS": [hosts.test_keys_on_subdomains],
    "TestSubdomainGatewayDNSLinkInlining": [
        hosts.test_dnslinks_as_labels,
        hosts.test_addresses_of_protocol_handlers,
    ],
    "TestProxyGatewaySubdomains": [hosts.test_as_a_proxy],
    "TestProxyTunnelGatewaySubdomains": [hosts.test_as_a_proxy],
    "TestTrustlessCarPathing": [trustless.test_paths_in_cars, trustless.test_a_path_that_is_not_there],
    "TestTrustlessCarDagScopeBlock": [trustless.test_scope_block],
    "TestTrustlessCarDagScopeEntity": [trustless.test_scope_entity],
    "TestTrustlessCarDagScopeAll": [trustless.test_scope_all],
    "TestTrustlessCarEntityBytes": [
        trustless.test_entity_bytes,
        trustless.test_entity_bytes_of_what_has_none_and_around_a_missing_block,
    ],
    "TestTrustlessCarOrderAndDuplicates": [trustless.test_order_and_duplicates],
    "TestTrustlessCarFormatPrecedence": [trustless.test_the_query_before_accept],
    "TestGatewayIPNSRecord": [paths.test_signed_records],
    "TestTrustlessRaw": [trustless.test_blocks],
    "TestTrustlessRawRanges": [trustless.test_ranges_of_blocks],
}


def test_all_top_level_tests_have_a_counterpart() -> None:
    assert len(COUNTERPARTS) == 41
    ours = {
        test
        for module in (paths, hosts, trustless)
        for name, test in vars(module).items()
        if name.startswith("test_")
    }
    assert {test for tests in COUNTERPARTS.values() for test in tests} == ours
