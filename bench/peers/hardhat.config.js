// Hardhat's node with the accounts, the chain and the gas limit of the comparison; a block each second, as anvil's.
const seconds = Number(process.env.PEER_BLOCK_S ?? "1");

module.exports = {
  solidity: "0.8.28",
  networks: {
    hardhat: {
      chainId: 7770,
      accounts: { mnemonic: process.env.PEER_MNEMONIC, count: 64 },
      blockGasLimit: 1000000000,
      mining: seconds > 0 ? { auto: false, interval: 1000 * seconds } : { auto: true },
      loggingEnabled: false,
    },
  },
};
